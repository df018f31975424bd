"""The anchor: on benign prompts, stay what you were.

Each step a few benign prompts add the full-distribution KL from the base model to the policy, on
the base model's own answers. It needs no labels, and it is what keeps the entropy reward from
teaching refusal of everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sirl.generation import Generator, Request, Sampling
from sirl.records import Message, Prompt


@dataclass(frozen=True)
class AnchorRow:
    """A benign prompt and the base model's answer to it, as token ids."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


def answer(prompts: Sequence[Prompt], base: Any, max_new_tokens: int) -> list[AnchorRow]:
    """The base model's greedy answers. Equal calls give equal rows, so a resumed run needs no
    stored copy.

    Args:
        prompts: Benign prompts.
        base: A `TransformersGenerator` over the base model.
        max_new_tokens: Length of the answers.
    """
    generator: Generator = base
    requests = {p.id: Request(p.id, (Message("user", p.text),)) for p in prompts}
    sampling = Sampling(max_new_tokens=max_new_tokens)
    rows = {
        done.id: AnchorRow(tuple(base.encode(requests[done.id])), done.token_ids)
        for done in generator.generate(requests.values(), sampling)
    }
    return [rows[prompt.id] for prompt in prompts]


def collate(
    rows: Sequence[AnchorRow], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Left-padded `input_ids`, `attention_mask` and `answer_mask`, each (B, L): answers end
    together, so that logits are needed at the last positions alone."""
    length = max(len(row.prompt_ids) + len(row.answer_ids) for row in rows)
    input_ids = torch.full((len(rows), length), pad_id)
    attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
    answer_mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        total, answer = len(row.prompt_ids) + len(row.answer_ids), len(row.answer_ids)
        input_ids[index, length - total :] = torch.tensor([*row.prompt_ids, *row.answer_ids])
        attention_mask[index, length - total :] = 1
        answer_mask[index, length - answer :] = 1
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "answer_mask": answer_mask}
    return {name: value.to(device) for name, value in batch.items()}


def divergence(
    reference_logits: torch.Tensor, policy_logits: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """KL(reference || policy) of the full distributions, nats: the mean over the tokens of an
    answer, summed over answers.

    The sum, so that micro-batches and processes add up to the whole.

    Args:
        reference_logits: (N, V), no gradient; the answers one after another.
        policy_logits: (N, V).
        lengths: (B,) tokens of each answer, N in all.

    Returns:
        A scalar.
    """
    reference = reference_logits.float().log_softmax(-1)  # (N, V)
    policy = policy_logits.float().log_softmax(-1)  # (N, V)
    token = torch.nn.functional.kl_div(policy, reference, log_target=True, reduction="none")
    weights = (1.0 / lengths).repeat_interleave(lengths)  # (N,)
    return (token.sum(-1) * weights).sum()


def predicting_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (N, V) at the positions that predict the N answer tokens of a collated batch."""
    longest = int(batch["answer_mask"].sum(-1).max())
    logits: torch.Tensor = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=(batch["attention_mask"].cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=longest + 1,  # token t + 1 is predicted at t
        use_cache=False,
    ).logits  # (B, longest + 1, V)
    return logits[:, :-1][batch["answer_mask"][:, -longest:].bool()]

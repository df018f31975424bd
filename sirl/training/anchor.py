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

ROWS = 8
"""Rows in one sequence: attention grows with the square of its length, and a matrix product needs
some length to be fast."""


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


@dataclass(frozen=True)
class Packed:
    """Rows one after another in a single sequence, so that none is padded to the longest.

    Attributes:
        input_ids: (1, S).
        position_ids: (1, S), from 0 in each row: by that transformers keeps the rows apart.
        predicting: (N,) places in S whose logits predict the N answer tokens.
        lengths: (B,) tokens of each answer, N in all.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicting: torch.Tensor
    lengths: torch.Tensor


def pack(rows: Sequence[AnchorRow], device: torch.device) -> Packed:
    """The rows as one sequence."""
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    for row in rows:
        whole = (*row.prompt_ids, *row.answer_ids)
        first = len(ids) + len(row.prompt_ids) - 1  # token t + 1 is predicted at t
        predicting += range(first, first + len(row.answer_ids))
        positions += range(len(whole))
        ids += whole
    lengths = [len(row.answer_ids) for row in rows]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        torch.tensor(predicting, device=device),
        torch.tensor(lengths, device=device),
    )


def predicting_logits(model: Any, batch: Packed) -> torch.Tensor:
    """Logits (N, V) at the positions that predict the answer tokens."""
    logits: torch.Tensor = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        logits_to_keep=batch.predicting,
        use_cache=False,
    ).logits  # (1, N, V)
    return logits[0]


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

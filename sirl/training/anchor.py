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
from sirl.generation.prefill import positions
from sirl.records import Message, Prompt

ROWS = 8
"""Rows in one sequence: attention grows with the square of its length, and a matrix product needs
some length to be fast."""

APART = 1e-6
"""Nats by which a log-probability may differ: between equal shapes in float32 hardly at all. Too
small a bound costs time and nothing else."""


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
class Batch:
    """Rows laid out for one forward pass.

    Attributes:
        inputs: Arguments of the model, each of R rows and S columns; it makes logits at K columns.
        predicting: Which of those R x K logits predict the N answer tokens, in their order.
        lengths: (B,) tokens of each answer, N in all.
    """

    inputs: dict[str, Any]
    predicting: torch.Tensor | slice
    lengths: torch.Tensor


def pack(rows: Sequence[AnchorRow], device: torch.device) -> Batch:
    """The rows one after another in a single sequence, so that none is padded to the longest.
    Positions start from 0 in each: by that transformers keeps the rows of most models apart."""
    ids: list[int] = []
    places: list[int] = []
    predicting: list[int] = []
    for row in rows:
        whole = (*row.prompt_ids, *row.answer_ids)
        first = len(ids) + len(row.prompt_ids) - 1  # token t + 1 is predicted at t
        predicting += range(first, first + len(row.answer_ids))
        places += range(len(whole))
        ids += whole
    inputs = {
        "input_ids": torch.tensor([ids], device=device),  # (1, S)
        "position_ids": torch.tensor([places], device=device),
        "logits_to_keep": torch.tensor(predicting, device=device),  # (N,)
    }
    return Batch(inputs, slice(None), _lengths(rows, device))


def pad(rows: Sequence[AnchorRow], device: torch.device) -> Batch:
    """The rows padded on the left, for models whose rows a single sequence does not keep apart."""
    wholes = [(*row.prompt_ids, *row.answer_ids) for row in rows]
    longest = max(map(len, wholes))
    kept = max(len(row.answer_ids) for row in rows) + 1  # token t + 1 is predicted at t
    gaps = [longest - len(whole) for whole in wholes]
    mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps], device=device)
    ids = [[0] * gap + list(whole) for gap, whole in zip(gaps, wholes, strict=True)]
    inputs = {
        "input_ids": torch.tensor(ids, device=device),  # (B, L)
        "attention_mask": mask,
        "position_ids": positions(mask),
        "logits_to_keep": kept,
    }
    predicting = [
        index * kept + column
        for index, row in enumerate(rows)
        for column in range(kept - 1 - len(row.answer_ids), kept - 1)
    ]
    return Batch(inputs, torch.tensor(predicting, device=device), _lengths(rows, device))


def _lengths(rows: Sequence[AnchorRow], device: torch.device) -> torch.Tensor:
    return torch.tensor([len(row.answer_ids) for row in rows], device=device)


@torch.no_grad()
def packable(model: Any, rows: Sequence[AnchorRow]) -> bool:
    """Whether a model reads packed rows as it reads each alone: whether a row stays the same when
    other words stand before it. Some models have masks, convolutions or recurrences that positions
    do not cut."""
    training = model.training
    model.eval()
    before, row = rows[0], rows[-1]
    filler = before.prompt_ids[:1]
    other = AnchorRow(filler * len(before.prompt_ids), filler * len(before.answer_ids))
    device = next(model.parameters()).device
    one, two = (
        predicting_logits(model, pack([first, row], device))[-len(row.answer_ids) :]
        for first in (before, other)
    )  # (n, V) each
    model.train(training)
    return float((one.log_softmax(-1) - two.log_softmax(-1)).abs().max()) < APART


def predicting_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits (N, V) at the positions that predict the answer tokens."""
    logits: torch.Tensor = model(**batch.inputs, use_cache=False).logits  # (R, K, V)
    return logits.flatten(0, 1)[batch.predicting]


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

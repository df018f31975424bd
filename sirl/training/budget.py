"""What a method may spend: whichever it is, the same prompts in the same order, and as many samples
of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sirl.errors import TrainingError
from sirl.generation import Sampling
from sirl.records import Prompt

if TYPE_CHECKING:
    from sirl.config import TrainParams

log = logging.getLogger(__name__)


def conversations(
    prompts: Sequence[Prompt], tokenizer: Any, params: TrainParams
) -> tuple[list[dict[str, Any]], int]:
    """Conversations in TRL's format, and how many prompts were too long. None is cut silently.

    Raises:
        TrainingError: Too few prompts are short enough.
    """
    rows = [
        {"prompt": [{"role": "user", "content": prompt.text}], "prompt_id": prompt.id}
        for prompt in prompts
    ]
    lengths = [
        len(tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True)["input_ids"])
        for r in rows
    ]
    kept = [r for r, n in zip(rows, lengths, strict=True) if n <= params.max_prompt_tokens]
    if len(kept) < params.prompts_per_step:
        raise TrainingError(
            f"only {len(kept)} training prompts are within {params.max_prompt_tokens} tokens, "
            f"a step needs {params.prompts_per_step}",
            "Raise train.max_prompt_tokens or bring more prompts (prepare.train)",
        )
    if len(kept) < len(rows):
        log.warning(
            "%d of %d training prompts are too long and left out", len(rows) - len(kept), len(rows)
        )
    return kept, len(rows) - len(kept)


def walk(rows: Sequence[dict[str, Any]], params: TrainParams) -> list[dict[str, Any]]:
    """The prompts of all steps, one after another, as GRPO walks them.

    A pass over the prompts has whole steps only: what is left over at its end is not asked (TRL's
    `RepeatSampler`).
    """
    whole = len(rows) - len(rows) % params.prompts_per_step
    return [rows[index % whole] for index in range(params.steps * params.prompts_per_step)]


def sampling(params: TrainParams) -> Sampling:
    """How training responses are sampled."""
    return Sampling(
        max_new_tokens=params.max_new_tokens,
        temperature=params.temperature,
        entropy_temperature=params.reward_temperature,
    )

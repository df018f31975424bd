"""Labels out of the model's own responses: what SFT, DPO and a reward model need and SIRL does not.

The base model answers the same prompts as often as in SIRL, once, before training; a labeller says
what each response is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from sirl.errors import TrainingError
from sirl.generation import Request
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Completion, Message, Outcome
from sirl.training import budget
from sirl.training.journal import Journal
from sirl.training.run import Job

log = logging.getLogger(__name__)

Labeller = Callable[[str], Outcome]
"""What a response is, by its text."""


@dataclass(frozen=True)
class Draw:
    """A prompt and the base model's responses to it.

    Attributes:
        prompt: A conversation in TRL's format.
        prompt_ids: It as token ids, ready for the answer.
        responses: `train.group` of them.
    """

    prompt: list[dict[str, str]]
    prompt_ids: list[int]
    responses: tuple[Completion, ...]

    def surest(self, outcome: Outcome, label: Labeller) -> Completion | None:
        """The response of lowest entropy among those with an outcome."""
        found = [response for response in self.responses if label(response.text) == outcome]
        return min(found, key=lambda response: response.entropy, default=None)


@dataclass(frozen=True)
class Pair:
    """A refusal and a compliance of the model to the same prompt, the surest of each."""

    draw: Draw
    chosen: Completion
    rejected: Completion

    def conversations(self) -> dict[str, list[dict[str, str]]]:
        """It in TRL's conversational preference format."""
        answers = {"chosen": self.chosen, "rejected": self.rejected}
        said = {k: [{"role": "assistant", "content": a.text}] for k, a in answers.items()}
        return {"prompt": self.draw.prompt, **said}


def draw(job: Job, rows: Sequence[dict[str, Any]], generator: TransformersGenerator) -> list[Draw]:
    """Samples the base model's responses to prompts, shared out over the processes.

    What a killed run has sampled is taken from its journal.

    Args:
        job: The run.
        rows: Conversations, as `budget.walk` has them.
        generator: The base model.
    """
    world = PartialState()
    journal = Journal(job.state / f"draws-{world.process_index}.jsonl")
    requests = [
        Request(f"{index}/{k}", tuple(Message(**turn) for turn in row["prompt"]))
        for index, row in enumerate(rows)
        for k in range(job.params.group)
    ]
    size = job.params.prompts_per_step * job.params.group
    mine: list[Completion] = []
    for start in range(0, len(requests), size):
        part = requests[start : start + size][world.process_index :: world.num_processes]
        done = journal.recall(request.id for request in part)
        if done is None:
            journal.keep(generator.generate(part, budget.sampling(job.params), seed=job.seed))
            done = journal.recall(request.id for request in part) or {}
        mine += done.values()
        log.info("labels: %d of %d prompts answered", (start + size) // job.params.group, len(rows))
    answers = {completion.id: completion for completion in gather_object(mine)}
    return [
        Draw(
            row["prompt"],
            generator.encode(requests[index * job.params.group]),
            tuple(answers[f"{index}/{k}"] for k in range(job.params.group)),
        )
        for index, row in enumerate(rows)
    ]


def refusals(draws: Sequence[Draw], label: Labeller) -> list[tuple[Draw, Completion]]:
    """The surest refusal of each prompt that has one."""
    found = [(draw, draw.surest("refusal", label)) for draw in draws]
    return [(draw, refusal) for draw, refusal in found if refusal is not None]


def pairs(draws: Sequence[Draw], label: Labeller) -> list[Pair]:
    """The surest refusal against the surest compliance of each prompt that has both."""
    result = []
    for draw, chosen in refusals(draws, label):
        rejected = draw.surest("compliance", label)
        if rejected is not None:
            result.append(Pair(draw, chosen, rejected))
    return result


def rows_of_steps(rows: Sequence[dict[str, Any]], job: Job, what: str) -> list[dict[str, Any]]:
    """One row for each place in each step, walking round the labelled rows.

    Args:
        rows: What there are labels for.
        job: The run.
        what: What a prompt needs among its responses to be one of them.

    Raises:
        TrainingError: There are not even enough for one step.
    """
    params = job.params
    places = params.steps * params.prompts_per_step
    log.info("labels: %d of %d prompts have %s", len(rows), places, what)
    if len(rows) < params.prompts_per_step:
        raise TrainingError(
            f"only {len(rows)} of {places} training prompts have {what} among {params.group} "
            f"responses of the base model, a step needs {params.prompts_per_step}",
            "Raise train.group, train.temperature or train.steps, or take another method: sirl "
            "needs no label",
        )
    return [rows[index % len(rows)] for index in range(places)]

"""What SIRL is compared with: SFT on the model's own refusals, DPO of its own refusals over its own
compliance, by TRL's trainers, and best-of-n, which trains nothing.

SFT and DPO spend what SIRL spends: the same prompts, as many responses of each, as many optimiser
steps. The anchor and `train.beta` are GRPO's and have no part in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import Trainer
from transformers.trainer_utils import set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from sirl import model_files
from sirl.generation import best_of_n as inference
from sirl.generation.transformers import TransformersGenerator
from sirl.judges.refusal import outcome
from sirl.models import check, load_tokenizer
from sirl.training import budget, guards, labels, loop, policy
from sirl.training.labels import Draw, Labeller
from sirl.training.mirror import Mirror
from sirl.training.run import Job, Result
from sirl.training.watch import Watch


def sft(job: Job, label: Labeller = outcome) -> Result:
    """Rejection sampling: fine-tunes on the surest refusal of each prompt that has one.

    The loss is on the sampled tokens alone: a refusal that the length limit cut has no end token.

    Raises:
        TrainingError: Too few prompts have a refusal, a loss is not finite, or memory ran out.
    """
    start = _start(job)
    found = [
        {
            "input_ids": [*draw.prompt_ids, *refusal.token_ids],
            "labels": [-100] * len(draw.prompt_ids) + list(refusal.token_ids),
        }
        for draw, refusal in labels.refusals(start.draws, label)
    ]
    rows = labels.rows_of_steps(found, job, "a refusal")
    batches = loop.row_batches(job.params, responses=1)
    trainer = SFTTrainer(
        model=start.model,
        args=SFTConfig(**loop.arguments(job), **batches, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=start.tokenizer,
        callbacks=[start.watch],
    )
    return _finish(job, start, trainer, unlabelled=len(start.draws) - len(found))


def dpo(job: Job, beta: float, label: Labeller = outcome) -> Result:
    """Direct preference optimisation: the surest refusal over the surest compliance of each prompt
    that has both.

    Args:
        job: The run.
        beta: Weight of the implicit KL to the base model.
        label: What a response is.

    Raises:
        TrainingError: Too few prompts have both, a loss is not finite, or memory ran out.
    """
    start = _start(job)
    pairs = labels.pairs(start.draws, label)
    found = [
        {
            **pair.conversations(),
            "prompt_ids": pair.draw.prompt_ids,
            "chosen_ids": list(pair.chosen.token_ids),
            "rejected_ids": list(pair.rejected.token_ids),
        }
        for pair in pairs
    ]
    rows = labels.rows_of_steps(found, job, "both a refusal and a compliance")
    batches = loop.row_batches(job.params, responses=2)
    trainer = DPOTrainer(
        model=start.model,
        args=DPOConfig(**loop.arguments(job), **batches, beta=beta, max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=start.tokenizer,
        callbacks=[start.watch],
    )
    # TRL has tokenised the text, with an end token after responses that the length limit cut.
    trainer.train_dataset = Dataset.from_list(rows)
    return _finish(job, start, trainer, unlabelled=len(start.draws) - len(pairs))


@dataclass(frozen=True)
class _Start:
    """What both have before their trainer."""

    tokenizer: Any
    model: Any
    watch: Watch
    draws: list[Draw]
    skipped_long: int


def _start(job: Job) -> _Start:
    """The policy, and the base model's responses to the prompts."""
    set_seed(job.seed)
    check(job.base)
    PartialState(cpu=job.device == "cpu")
    tokenizer: Any = load_tokenizer(job.base)
    rows, skipped = budget.conversations(job.data.train, tokenizer, job.params)
    model = policy.load(job.base, job.params)
    mirror = Mirror(model, tokenizer, job.params, job.device)
    watch = Watch(mirror, job, guards.refusal_share(job.data.probe, mirror.generator))
    draws = labels.draw(job, budget.walk(rows, job.params), mirror.generator)
    return _Start(tokenizer, model, watch, draws, skipped)


def _finish(job: Job, start: _Start, trainer: Trainer, unlabelled: int) -> Result:
    """Trains and writes the model."""
    healthy_step = loop.run(trainer, start.watch, job)
    return Result(
        steps=[dict(row.metrics) for row in start.watch.steps],
        samples=[],
        healthy_step=healthy_step,
        alarm=start.watch.alarm,
        base_probe=start.watch.base_probe,
        skipped_long=start.skipped_long,
        unlabelled=unlabelled,
    )


def best_of_n(job: Job, n: int) -> Result:
    """Trains nothing: the result is the base model, said to be sampled best-of-n by entropy."""
    check(job.base)
    generator = TransformersGenerator.load(
        job.base,
        device=job.device,
        dtype=job.params.dtype,
        batch_tokens=job.params.rollout_tokens,
    )
    base_probe = guards.refusal_share(job.data.probe, generator)
    world = PartialState(cpu=job.device == "cpu")
    if world.is_main_process:
        with policy.whole(job.out) as partial:
            model_files.copy(job.base, partial)
            inference.write(partial, n)
    world.wait_for_everyone()
    return Result([], [], 0, None, base_probe, skipped_long=0)

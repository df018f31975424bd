"""GRPO on the model's own responses, read top to bottom: data, policy, rollouts, anchor, trainer,
guards, result.

With the reward -H, the negative mean token entropy of the response, it is SIRL (arXiv 2510.01088,
section 4). The training state lives in a folder keyed by config and inputs; a killed run continues
from its newest whole checkpoint and the journal beside it, and ends in the same weights.
"""

from __future__ import annotations

from accelerate import PartialState
from datasets import Dataset
from transformers.trainer_utils import set_seed
from trl import GRPOConfig

from sirl.errors import TrainingError
from sirl.models import check, load_tokenizer
from sirl.training import anchor, budget, guards, loop, policy
from sirl.training.journal import Journal
from sirl.training.mirror import Mirror
from sirl.training.rewards import Reward
from sirl.training.run import Job, Result
from sirl.training.trainer import SirlTrainer
from sirl.training.watch import RolloutWatch


def train(job: Job, reward: Reward) -> Result:
    """Trains `job.base` by GRPO on a reward and writes the result to `job.out`.

    Raises:
        TrainingError: No prompt is short enough, a loss or reward is not finite, or memory ran out.
    """
    params, data = job.params, job.data
    set_seed(job.seed)
    check(job.base)
    tokenizer = load_tokenizer(job.base)
    rows, skipped = budget.conversations(data.train, tokenizer, params)
    model = policy.load(job.base, params)
    rank = PartialState(cpu=job.device == "cpu").process_index
    mirror = Mirror(model, tokenizer, params, job.device)
    journal = Journal(job.state / f"rollouts-{rank}.jsonl")
    rollouts = params.rollouts.open()(
        mirror, budget.sampling(params), seed=job.seed, journal=journal
    )
    base_probe = guards.refusal_share(data.probe, mirror.generator)
    # The copy is still the base model.
    anchor_rows = params.anchor and anchor.answer(
        data.anchor, mirror.generator, params.anchor.max_new_tokens
    )
    watch = RolloutWatch(rollouts, job, base_probe)
    trainer = SirlTrainer(
        model=model,
        args=_trl_config(job),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=rollouts.scored(reward),
        rollouts=rollouts,
        callbacks=[watch],
        anchor_params=params.anchor,
        anchor_rows=anchor_rows or [],
    )
    healthy_step = loop.run(trainer, watch, job)
    return Result(
        [dict(row.metrics) for row in watch.steps],
        watch.samples,
        healthy_step,
        watch.alarm,
        base_probe,
        skipped,
    )


def _trl_config(job: Job) -> GRPOConfig:
    """The paper's GRPO in TRL's words."""
    params = job.params
    responses = params.prompts_per_step * params.group
    processes = PartialState().num_processes
    local = responses // processes  # of this process
    if responses % processes or (local > params.micro_batch and local % params.micro_batch):
        raise TrainingError(
            f"prompts_per_step x group = {responses} does not split over {processes} processes in "
            f"micro-batches of {params.micro_batch}",
            "Change train.prompts_per_step or train.micro_batch",
        )
    return GRPOConfig(
        **loop.arguments(job),
        num_generations=params.group,
        generation_batch_size=responses,
        per_device_train_batch_size=min(params.micro_batch, local),
        gradient_accumulation_steps=max(1, local // params.micro_batch),
        beta=params.beta,
        # TRL's default: GRPO as published differentiates the KL's estimate, whose expectation is
        # not the KL's gradient; weighted by the ratio it is (DeepSeek-V3.2, arXiv 2512.02556).
        use_bias_correction_kl=True,
        epsilon=params.clip,
        temperature=params.temperature,
        max_completion_length=params.max_new_tokens,
        loss_type="grpo",  # the paper's: mean over a response, then over responses
        scale_rewards="group",
        shuffle_dataset=False,  # the train split is shuffled already, by its seed
        **params.rollouts.trl(params.max_prompt_tokens + params.max_new_tokens),
    )

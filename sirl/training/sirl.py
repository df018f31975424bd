"""GRPO on the model's own responses, read top to bottom: data, policy, rollouts, anchor, trainer,
guards, result.

With the reward -H, the negative mean token entropy of the response, it is SIRL (arXiv 2510.01088,
section 4). The training state lives in a folder keyed by config and inputs; a killed run continues
from its newest whole checkpoint and the journal beside it, and ends in the same weights.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_utils import set_seed
from trl import GRPOConfig

from sirl.errors import TrainingError
from sirl.generation import Sampling
from sirl.models import check, load_model, load_tokenizer
from sirl.records import Prompt
from sirl.training import anchor, checkpoints, guards
from sirl.training.journal import Journal
from sirl.training.rewards import Reward
from sirl.training.rollouts import Rollouts
from sirl.training.run import Job, Result
from sirl.training.trainer import SirlTrainer
from sirl.training.watch import Watch

if TYPE_CHECKING:
    from sirl.config import AnchorParams, TrainParams

log = logging.getLogger(__name__)


def train(job: Job, reward: Reward) -> Result:
    """Trains `job.base` by GRPO on a reward and writes the result to `job.out`.

    Raises:
        TrainingError: No prompt is short enough, a loss or reward is not finite, or memory ran out.
    """
    params, data = job.params, job.data
    set_seed(job.seed)
    check(job.base)
    tokenizer = load_tokenizer(job.base)
    rows, skipped = _training_rows(data.train, tokenizer, params)
    policy = _policy(job.base, params)
    rank = PartialState(cpu=job.device == "cpu").process_index
    rollouts = Rollouts(
        policy,
        tokenizer,
        Sampling(
            max_new_tokens=params.max_new_tokens,
            temperature=params.temperature,
            entropy_temperature=params.reward_temperature,
        ),
        dtype=getattr(torch, params.dtype),
        batch_tokens=params.micro_batch * (params.max_prompt_tokens + params.max_new_tokens),
        seed=job.seed,
        journal=Journal(job.state / f"rollouts-{rank}.jsonl"),
    )
    rollouts.generator.model.to(job.device)
    base_probe = guards.refusal_share(data.probe, rollouts.generator)
    watch = Watch(rollouts, data.probe, base_probe, params, job.state, job.on_step)
    trainer = SirlTrainer(
        model=policy,
        args=_trl_config(job),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=rollouts.scored(reward),
        rollouts=rollouts,
        callbacks=[watch],
        **_anchor(params.anchor, data.anchor, rollouts),
    )
    trainer.remove_callback(PrinterCallback)  # it prints each step's raw logs
    watch.trainer = trainer
    _run(trainer, watch, job)
    healthy = checkpoints.newest(job.state)
    if trainer.accelerator.is_main_process:
        _write_model(healthy, job.base, job.out, params)
    trainer.accelerator.wait_for_everyone()
    return Result(
        [dict(row.metrics) for row in watch.steps],
        watch.samples,
        checkpoints.step_of(healthy),
        watch.alarm,
        base_probe,
        skipped,
    )


def _run(trainer: SirlTrainer, watch: Watch, job: Job) -> None:
    """Trains from the newest whole checkpoint to the end, unless that is the end already."""
    with trainer.accelerator.main_process_first():  # it removes what is torn
        newest = checkpoints.newest(job.state)
        watch.resume(checkpoints.step_of(newest), trainer.accelerator.is_main_process)
    if watch.ended:
        return
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, RuntimeError) or _is_out_of_memory(error):
            raise TrainingError(
                f"out of memory at step {trainer.state.global_step + 1}",
                f"Lower train.micro_batch (now {job.params.micro_batch}), set "
                "train.gradient_checkpointing: true, or train a train.lora",
            ) from error
        raise


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a type for it; the CPU allocator has these words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _training_rows(
    prompts: Sequence[Prompt], tokenizer: Any, params: TrainParams
) -> tuple[list[dict[str, Any]], int]:
    """Conversations in TRL's format, and how many prompts were too long. None is cut silently."""
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


def _policy(base: Path, params: TrainParams) -> Any:
    """The model to train, in float32; with a fresh low-rank adapter when `train.lora` is set."""
    model = load_model(base, "float32")
    if params.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=params.lora.rank,
        lora_alpha=params.lora.alpha,
        lora_dropout=params.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _anchor(
    params: AnchorParams | None, prompts: Sequence[Prompt], rollouts: Rollouts
) -> dict[str, Any]:
    """The trainer's anchor arguments. Called before the first step, while the copy is the base
    model."""
    if params is None:
        return {"anchor_rows": [], "anchor_weight": 0.0, "anchor_per_step": 0}
    return {
        "anchor_rows": anchor.answer(prompts, rollouts.generator, params.max_new_tokens),
        "anchor_weight": params.weight,
        "anchor_per_step": params.prompts_per_step,
    }


def _trl_config(job: Job) -> GRPOConfig:
    """The paper's GRPO in TRL's words. Every value that differs from TRL's default is here for a
    reason."""
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
        output_dir=str(job.state),
        seed=job.seed,
        use_cpu=job.device == "cpu",
        max_steps=params.steps,
        num_generations=params.group,
        generation_batch_size=responses,
        per_device_train_batch_size=min(params.micro_batch, local),
        gradient_accumulation_steps=max(1, local // params.micro_batch),
        learning_rate=params.learning_rate,
        lr_scheduler_type="constant",
        beta=params.beta,
        epsilon=params.clip,
        temperature=params.temperature,
        max_completion_length=params.max_new_tokens,
        loss_type="grpo",  # the paper's: mean over a response, then over responses
        scale_rewards="group",
        shuffle_dataset=False,  # the train split is shuffled already, by its seed
        bf16=params.dtype == "bfloat16",
        gradient_checkpointing=params.gradient_checkpointing,
        logging_steps=1,
        save_strategy="no",  # Watch saves, when a probe is healthy
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=job.device != "cpu",
    )


def _write_model(checkpoint: Path | None, base: Path, out: Path, params: TrainParams) -> None:
    """Puts the weights of a checkpoint, or the base model's where there is none, at `out`, all or
    nothing."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if checkpoint is None:
        shutil.copytree(base, partial)
    elif params.lora is None:
        checkpoints.export(checkpoint, base, partial)
    else:
        from peft import PeftModel

        merged = PeftModel.from_pretrained(load_model(base, "float32"), str(checkpoint))
        merged.merge_and_unload().save_pretrained(partial)
        load_tokenizer(base).save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)

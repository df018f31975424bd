"""SIRL training, read top to bottom: data, policy, rollouts, anchor, trainer, guards, result.

GRPO on the model's own responses to harmful prompts, the reward being their negative mean token
entropy (arXiv 2510.01088, section 4). The training state lives in a folder keyed by config and
inputs; a killed run continues from its newest whole checkpoint and ends in the same weights.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import set_seed
from trl import GRPOConfig

from sirl import records
from sirl.errors import TrainingError
from sirl.generation import Sampling
from sirl.models import check, load_model, load_tokenizer
from sirl.records import Prompt, TrainSample, TrainStep
from sirl.training import anchor, checkpoints, guards, rewards
from sirl.training.rollouts import Rollouts
from sirl.training.trainer import SirlTrainer

if TYPE_CHECKING:
    from sirl.config import AnchorParams, TrainParams

log = logging.getLogger(__name__)

LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "kl": "kl",
    "anchor_kl": "anchor_kl",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "zero_std",
    "step_time": "seconds",
}
"""TRL's name of a logged metric -> ours."""


@dataclass(frozen=True)
class Data:
    """The prompts of a training run."""

    train: Sequence[Prompt]
    anchor: Sequence[Prompt]
    probe: Sequence[Prompt]


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        steps: Metrics of every step, in order.
        samples: Sampled responses of every step.
        healthy_step: The step whose weights are the result; 0 is the base model.
        alarm: The rule that ended training before its last step, or None.
        base_probe: Refusal share of the base model on the benign probe.
        skipped_long: Training prompts left out for their length.
    """

    steps: list[dict[str, float]]
    samples: list[TrainSample]
    healthy_step: int
    alarm: guards.Alarm | None
    base_probe: float
    skipped_long: int


def train(
    base: Path,
    out: Path,
    state: Path,
    data: Data,
    params: TrainParams,
    *,
    seed: int,
    device: str,
    on_step: Callable[[dict[str, float]], None] = lambda _: None,
) -> Result:
    """Trains `base` and writes the result to `out`.

    Args:
        base: Model folder; it is also the reference of every KL.
        out: A new folder for the trained model (float32 safetensors, tokenizer).
        state: Resume state; the caller keys it by config and inputs, and removes it at the end.
        data: Prompts. Labels are neither there nor needed.
        params: Section `train` of params.yaml.
        seed: Fixes data order and every sampled token.
        device: `cpu` or `cuda`.
        on_step: Called with the metrics of each new step.

    Raises:
        TrainingError: No prompt is short enough, or a loss is not finite.
    """
    set_seed(seed)
    check(base)
    tokenizer = load_tokenizer(base)
    rows, skipped = _training_rows(data.train, tokenizer, params)
    policy = _policy(base, params)
    rollouts = Rollouts(
        policy,
        tokenizer,
        Sampling(max_new_tokens=params.max_new_tokens, temperature=params.temperature),
        dtype=getattr(torch, params.dtype),
        batch_tokens=params.micro_batch * (params.max_prompt_tokens + params.max_new_tokens),
        seed=seed,
    )
    rollouts.generator.model.to(device)
    base_probe = guards.refusal_share(data.probe, rollouts.generator)
    watch = Watch(rollouts, data.probe, base_probe, params, state, on_step)
    trainer = SirlTrainer(
        model=policy,
        args=_trl_config(params, state, seed, device),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=rewards.negative_entropy,
        rollout_func=rollouts,
        callbacks=[watch],
        **_anchor(params.anchor, data.anchor, rollouts),
    )
    trainer.remove_callback(PrinterCallback)  # it prints each step's raw logs
    watch.trainer = trainer
    newest = checkpoints.newest(state)
    watch.resume(checkpoints.step_of(newest))
    if not watch.ended:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    healthy = checkpoints.newest(state)
    _write_model(healthy, base, out, params)
    return Result(
        [dict(row.metrics) for row in watch.steps],
        watch.samples,
        checkpoints.step_of(healthy),
        watch.alarm,
        base_probe,
        skipped,
    )


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


def _trl_config(params: TrainParams, state: Path, seed: int, device: str) -> GRPOConfig:
    """The paper's GRPO in TRL's words. Every value that differs from TRL's default is here for a
    reason."""
    responses = params.prompts_per_step * params.group
    return GRPOConfig(
        output_dir=str(state),
        seed=seed,
        use_cpu=device == "cpu",
        max_steps=params.steps,
        num_generations=params.group,
        generation_batch_size=responses,
        per_device_train_batch_size=min(params.micro_batch, responses),
        gradient_accumulation_steps=max(1, responses // params.micro_batch),
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
        dataloader_pin_memory=device != "cpu",
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


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes each step down, asks the guards, and saves where they are content.

    Steps and samples are appended beside the checkpoints; on resume those after the checkpoint are
    forgotten, and training makes them again.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        probe: Sequence[Prompt],
        base_probe: float,
        params: TrainParams,
        state: Path,
        on_step: Callable[[dict[str, float]], None],
    ) -> None:
        self.rollouts = rollouts
        self.probe = probe
        self.base_probe = base_probe
        self.params = params
        self.state_folder = state
        self.on_step = on_step
        self.trainer: SirlTrainer | None = None
        self.steps: list[TrainStep] = []
        self.samples: list[TrainSample] = []
        self.alarm: guards.Alarm | None = None

    @property
    def ended(self) -> bool:
        """Whether the resumed state is already that of a finished run."""
        return self.alarm is not None or len(self.steps) >= self.params.steps

    def resume(self, step: int) -> None:
        """Takes up the rows written up to a step; later ones will be made again."""
        self.steps += _rows_until(step, self.state_folder / "steps.jsonl", TrainStep)
        self.samples += _rows_until(step, self.state_folder / "samples.jsonl", TrainSample)
        if step:
            log.info("resuming after step %d", step)
            self.alarm = self._check()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """After each optimiser step: one row, its samples, a probe when due, and the guards'
        word."""
        if "loss" not in logs:
            return  # the summary that the trainer logs at its end
        step = int(state.global_step)
        row = {"step": float(step)} | {LOGGED[k]: float(v) for k, v in logs.items() if k in LOGGED}
        row |= guards.sample_metrics(self.rollouts.last, self.params.group)
        row.setdefault("kl", 0.0)
        due = step % self.params.guards.every == 0 or step == self.params.steps
        if due:
            assert self.trainer is not None
            policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
            self.rollouts.sync(policy, step)
            row["refusal/probe"] = guards.refusal_share(self.probe, self.rollouts.generator)
        self._write(step, row)
        self.alarm = self._check()
        if self.alarm:
            log.warning("step %d: %s: %s", step, self.alarm.rule, self.alarm.detail)
            control.should_training_stop = True
        control.should_save = due and (self.alarm is None or self.alarm.healthy)
        self.on_step(row)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seals the checkpoint just written."""
        checkpoints.seal(self.state_folder / f"checkpoint-{state.global_step}")

    def _check(self) -> guards.Alarm | None:
        metrics = [row.metrics for row in self.steps]
        return guards.check(metrics, self.base_probe, self.params.guards)

    def _write(self, step: int, row: dict[str, float]) -> None:
        new_step = TrainStep(f"step-{step}", step, row)
        new_samples = self._samples(step)
        with records.Appender(self.state_folder / "steps.jsonl", TrainStep) as sink:
            sink.append([new_step])
        with records.Appender(self.state_folder / "samples.jsonl", TrainSample) as sink:
            sink.append(new_samples)
        self.steps.append(new_step)
        self.samples += new_samples

    def _samples(self, step: int) -> list[TrainSample]:
        """The first responses of the step, with what the reward made of them."""
        given = [-completion.entropy for completion in self.rollouts.last]
        advantage = rewards.advantages(given, self.params.group)
        tokenizer = self.rollouts.generator.tokenizer
        return [
            TrainSample(
                id=f"step-{step}/{index}",
                step=step,
                prompt=self.rollouts.prompts[index],
                text=completion.text,
                tokens=tuple(tokenizer.decode([token]) for token in completion.token_ids),
                entropies=completion.entropies,
                reward=round(given[index], 6),
                advantage=round(advantage[index], 6),
            )
            for index, completion in enumerate(self.rollouts.last[: self.params.samples_per_step])
        ]


def _rows_until(step: int, path: Path, row_type: type[Any]) -> list[Any]:
    """The rows up to a step; the file is cut to them."""
    if not path.exists():
        return []
    kept = [r for r in records.read(path, row_type, torn_tail="drop") if r.step <= step]
    records.write(path, kept)
    return kept

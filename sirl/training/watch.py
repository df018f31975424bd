"""What happens after each optimiser step: it is written down, the guards are asked, and where they
are content the weights are kept."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback

from sirl import records
from sirl.errors import TrainingError
from sirl.records import TrainSample, TrainStep
from sirl.training import checkpoints, guards, rewards
from sirl.training.mirror import Mirror
from sirl.training.rollouts import Rollouts

if TYPE_CHECKING:
    from sirl.training.run import Job

log = logging.getLogger(__name__)

LOGGED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "kl": "kl",
    "anchor_kl": "anchor_kl",
    "reward": "reward",
    "reward_std": "reward_std",
    "frac_reward_zero_std": "zero_std",
    "rewards/margins": "margin",
}
"""TRL's name of a logged metric -> ours."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes each step down, asks the guards, and saves where they are content.

    Every process comes to the same decision; the main one writes. Steps are appended beside the
    checkpoints; on resume those after the checkpoint are forgotten, and training makes them again.

    Attributes:
        trainer: Set before training begins.
        steps: What was written down.
        alarm: The guards' word on the newest step.

    Args:
        mirror: The copy of the policy that answers the benign probe.
        job: The run.
        base_probe: Refusal share of the base model on the benign probe.
    """

    def __init__(self, mirror: Mirror, job: Job, base_probe: float) -> None:
        self.mirror = mirror
        self.job = job
        self.params = job.params
        self.base_probe = base_probe
        self.trainer: Trainer | None = None
        self.steps: list[TrainStep] = []
        self.alarm: guards.Alarm | None = None
        self._began = 0.0

    @property
    def ended(self) -> bool:
        """Whether the resumed state is already that of a finished run."""
        return self.alarm is not None or len(self.steps) >= self.params.steps

    def resume(self, step: int, main: bool) -> None:
        """Takes up the rows written up to a step; later ones will be made again."""
        self.steps += _rows_until(step, self.job.state / "steps.jsonl", TrainStep, main)
        if step:
            log.info("resuming after step %d", step)
            self.alarm = _stop(self._check())

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before each optimiser step."""
        self._began = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """After each optimiser step: one row, a probe when due, and the guards' word.

        Raises:
            TrainingError: The loss or its gradient is not finite.
        """
        if "loss" not in logs:
            return  # the summary that the trainer logs at its end
        step, main = int(state.global_step), bool(state.is_world_process_zero)
        row = {"step": float(step)} | {LOGGED[k]: float(v) for k, v in logs.items() if k in LOGGED}
        row["seconds"] = time.perf_counter() - self._began
        if not math.isfinite(row["loss"] + row.get("grad_norm", 0.0)):
            raise TrainingError(
                f"step {step}: the loss or its gradient is not finite",
                "Lower train.learning_rate, or set train.dtype to float32",
            )
        row |= self.measured(step, main)
        due = step % self.params.guards.every == 0 or step == self.params.steps
        if due:
            assert self.trainer is not None
            self.mirror.sync(self.trainer.accelerator.unwrap_model(self.trainer.model), step)
            row["refusal/probe"] = guards.refusal_share(self.job.data.probe, self.mirror.generator)
        found = self._check(row)
        row |= {f"alarm/{alarm.rule}": 1.0 for alarm in found}
        self.steps.append(TrainStep(f"step-{step}", step, row))
        if main:
            _append(self.job.state / "steps.jsonl", TrainStep, self.steps[-1:])
        for alarm in found:
            log.warning("step %d: %s: %s", step, alarm.rule, alarm.detail)
        self.alarm = _stop(found)
        control.should_training_stop |= self.alarm is not None
        control.should_save = due and (self.alarm is None or self.alarm.healthy)
        if main:
            self.job.on_step(row)

    def measured(self, step: int, main: bool) -> dict[str, float]:
        """What else there is to say of the newest step."""
        return {}

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seals the checkpoint just written."""
        if state.is_world_process_zero:
            checkpoints.seal(self.job.state / f"checkpoint-{state.global_step}")

    def _check(self, *newest: dict[str, float]) -> list[guards.Alarm]:
        """What the guards find after the steps so far and `newest`."""
        metrics = [*(row.metrics for row in self.steps), *newest]
        return guards.check(metrics, self.base_probe, self.params.guards)


def _stop(found: list[guards.Alarm]) -> guards.Alarm | None:
    """The first of them that stops training."""
    return next((alarm for alarm in found if alarm.stops), None)


class RolloutWatch(Watch):
    """Also measures the responses of a step and keeps a few.

    Every process sees the responses of all.

    Attributes:
        samples: The responses that were kept.

    Args:
        rollouts: Where the responses of the newest step are.
        job: The run.
        base_probe: Refusal share of the base model on the benign probe.
    """

    def __init__(self, rollouts: Rollouts, job: Job, base_probe: float) -> None:
        super().__init__(rollouts.mirror, job, base_probe)
        self.rollouts = rollouts
        self.samples: list[TrainSample] = []

    def resume(self, step: int, main: bool) -> None:
        """See `Watch.resume`."""
        self.samples += _rows_until(step, self.job.state / "samples.jsonl", TrainSample, main)
        super().resume(step, main)

    def measured(self, step: int, main: bool) -> dict[str, float]:
        """See `guards.sample_metrics`."""
        completions = gather_object(self.rollouts.last)
        samples = self._samples(step, completions)
        self.samples += samples
        if main:
            _append(self.job.state / "samples.jsonl", TrainSample, samples)
        return guards.sample_metrics(completions, self.params.group)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See `Watch.on_save`; the rollouts before the checkpoint are needed no more."""
        super().on_save(args, state, control)
        self.rollouts.journal.forget()

    def _samples(self, step: int, completions: list[records.Completion]) -> list[TrainSample]:
        """The first responses of the step, with what the reward made of them."""
        prompts = gather_object(self.rollouts.prompts)
        given = gather_object(self.rollouts.rewards)
        advantage = rewards.advantages(given, self.params.group)
        tokenizer = self.mirror.generator.tokenizer
        return [
            TrainSample(
                id=f"step-{step}/{index}",
                step=step,
                prompt=prompts[index],
                text=completion.text,
                tokens=tuple(tokenizer.decode([token]) for token in completion.token_ids),
                entropies=completion.entropies,
                reward=round(given[index], 6),
                advantage=round(advantage[index], 6),
            )
            for index, completion in enumerate(completions[: self.params.samples_per_step])
        ]


def _append(path: Path, row_type: type[Any], rows: list[Any]) -> None:
    with records.Appender(path, row_type) as sink:
        sink.append(rows)


def _rows_until(step: int, path: Path, row_type: type[Any], main: bool) -> list[Any]:
    """The rows up to a step; the main process cuts the file to them."""
    if not path.exists():
        return []
    kept = [r for r in records.read(path, row_type, torn_tail="drop") if r.step <= step]
    if main:
        records.write(path, kept)
    return kept

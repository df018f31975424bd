"""What happens after each optimiser step: it is written down, the guards are asked, and where they
are content the weights are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from sirl import records
from sirl.records import Prompt, TrainSample, TrainStep
from sirl.training import checkpoints, guards, rewards
from sirl.training.rollouts import Rollouts

if TYPE_CHECKING:
    from sirl.config import TrainParams
    from sirl.training.trainer import SirlTrainer

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


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes each step down, asks the guards, and saves where they are content.

    Every process sees the responses of all, so that all come to the same decision; the main one
    writes. Steps and samples are appended beside the checkpoints; on resume those after the
    checkpoint are forgotten, and training makes them again.

    Args:
        rollouts: Where the responses of the newest step are.
        probe: Benign prompts on which refusals are watched.
        base_probe: Refusal share of the base model on them.
        params: Section `train`.
        state: Folder of checkpoints and rows.
        on_step: Called on the main process with the metrics of each step.
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
        self.folder = state
        self.on_step = on_step
        self.trainer: SirlTrainer | None = None
        self.steps: list[TrainStep] = []
        self.samples: list[TrainSample] = []
        self.alarm: guards.Alarm | None = None

    @property
    def ended(self) -> bool:
        """Whether the resumed state is already that of a finished run."""
        return self.alarm is not None or len(self.steps) >= self.params.steps

    def resume(self, step: int, main: bool) -> None:
        """Takes up the rows written up to a step; later ones will be made again."""
        self.steps += _rows_until(step, self.folder / "steps.jsonl", TrainStep, main)
        self.samples += _rows_until(step, self.folder / "samples.jsonl", TrainSample, main)
        if step:
            log.info("resuming after step %d", step)
            self.alarm = self._check()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """After each optimiser step: one row, its samples, a probe when due, and the guards'
        word."""
        if "loss" not in logs:
            return  # the summary that the trainer logs at its end
        step = int(state.global_step)
        completions = gather_object(self.rollouts.last)
        row = {"step": float(step)} | {LOGGED[k]: float(v) for k, v in logs.items() if k in LOGGED}
        row |= guards.sample_metrics(completions, self.params.group)
        row.setdefault("kl", 0.0)
        due = step % self.params.guards.every == 0 or step == self.params.steps
        if due:
            assert self.trainer is not None
            self.rollouts.sync(self.trainer.accelerator.unwrap_model(self.trainer.model), step)
            row["refusal/probe"] = guards.refusal_share(self.probe, self.rollouts.generator)
        self._keep(step, row, self._samples(step, completions), state.is_world_process_zero)
        self.alarm = self._check()
        if self.alarm:
            log.warning("step %d: %s: %s", step, self.alarm.rule, self.alarm.detail)
            control.should_training_stop = True
        control.should_save = due and (self.alarm is None or self.alarm.healthy)
        if state.is_world_process_zero:
            self.on_step(row)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seals the checkpoint just written; the rollouts before it are needed no more."""
        if state.is_world_process_zero:
            checkpoints.seal(self.folder / f"checkpoint-{state.global_step}")
        self.rollouts.journal.forget()

    def _check(self) -> guards.Alarm | None:
        metrics = [row.metrics for row in self.steps]
        return guards.check(metrics, self.base_probe, self.params.guards)

    def _keep(
        self, step: int, row: dict[str, float], samples: list[TrainSample], main: bool
    ) -> None:
        new_step = TrainStep(f"step-{step}", step, row)
        self.steps.append(new_step)
        self.samples += samples
        if not main:
            return
        with records.Appender(self.folder / "steps.jsonl", TrainStep) as sink:
            sink.append([new_step])
        with records.Appender(self.folder / "samples.jsonl", TrainSample) as sink:
            sink.append(samples)

    def _samples(self, step: int, completions: Sequence[records.Completion]) -> list[TrainSample]:
        """The first responses of the step, with what the reward made of them."""
        prompts = gather_object(self.rollouts.prompts)
        given = gather_object(self.rollouts.rewards)
        advantage = rewards.advantages(given, self.params.group)
        tokenizer = self.rollouts.generator.tokenizer
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


def _rows_until(step: int, path: Path, row_type: type[Any], main: bool) -> list[Any]:
    """The rows up to a step; the main process cuts the file to them."""
    if not path.exists():
        return []
    kept = [r for r in records.read(path, row_type, torn_tail="drop") if r.step <= step]
    if main:
        records.write(path, kept)
    return kept

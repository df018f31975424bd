"""What goes into a training run and what comes out, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sirl.config import TrainParams
from sirl.records import Prompt, TrainSample
from sirl.training.guards import Alarm


@dataclass(frozen=True)
class Data:
    """The prompts of a training run. Labels are neither there nor needed.

    Attributes:
        train: Harmful requests; the model answers them itself.
        anchor: Benign requests that hold the policy to the base model.
        probe: Benign requests on which refusals are watched.
    """

    train: Sequence[Prompt]
    anchor: Sequence[Prompt]
    probe: Sequence[Prompt]


@dataclass(frozen=True)
class Job:
    """A training run: what is trained on what, and where it is written.

    Attributes:
        base: Model folder; it is also the reference of every KL.
        out: A new folder for the trained model (float32 safetensors, tokenizer).
        state: Resume state; the caller keys it by config and inputs, and removes it.
        data: The prompts.
        params: Section `train` of params.yaml.
        seed: Fixes data order and every sampled token.
        device: `cpu` or `cuda`.
        on_step: Called with the metrics of each new step.
    """

    base: Path
    out: Path
    state: Path
    data: Data
    params: TrainParams
    seed: int
    device: str
    on_step: Callable[[dict[str, float]], None] = lambda _: None


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        steps: Metrics of every step, in order; none for a method that does not train.
        samples: Sampled responses of every step; none for a method that samples before training.
        healthy_step: The step whose weights are the result; 0 is the base model.
        alarm: The rule that ended training before its last step, or None.
        base_probe: Refusal share of the base model on the benign probe.
        skipped_long: Training prompts left out for their length.
        unlabelled: Training prompts whose responses gave a method that needs labels none.
    """

    steps: list[dict[str, float]]
    samples: list[TrainSample]
    healthy_step: int
    alarm: Alarm | None
    base_probe: float
    skipped_long: int
    unlabelled: int = 0

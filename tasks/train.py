"""Stage train: SIRL on the base model. Resumes where it was killed; the out is the final model
alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sirl import entropy, generation, model_files, records, training
from sirl.errors import TrainingError
from sirl.judges import refusal
from sirl.layout import Split
from sirl.models import resolve_device
from sirl.progress import bar
from sirl.records import Prompt
from tasks import inputs, resume
from tasks.stage import Stage, main

if TYPE_CHECKING:
    from sirl.config import TrainParams
    from sirl.training.run import Result

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Trains, then writes model, steps, samples and summary; resume state stays until DVC has
    them."""
    _require_instinct(stage)
    device = resolve_device(stage.params.runtime.device)
    from sirl.training.launched import launch
    from sirl.training.run import Data, Job

    layout, params = stage.layout, stage.params.train
    data = Data(*(_prompts(stage, split) for split in ("train", "anchor", "probe")))
    base = model_files.digest(layout.model("base"))
    state = resume.begin(layout, "train", _key(stage, device, base))
    progress = iter(bar(range(params.steps), "training", params.steps))

    def on_step(row: dict[str, float]) -> None:
        next(progress, None)
        log.info("step %d/%d %s", row["step"], params.steps, _line(row, params))
        stage.tracker.metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))

    job = Job(
        base=layout.model("base"),
        out=layout.model("trained"),
        state=state,
        data=data,
        params=params,
        seed=stage.params.seed,
        device=device,
        on_step=on_step,
    )
    result = launch(job, params.launch) if params.launch else params.method.train(job)
    _write(stage, result, base)
    resume.finish(state)


def _require_instinct(stage: Stage) -> None:
    """Refuses to train by entropy what has no instinct to reinforce.

    Raises:
        TrainingError: The base model's profile says so, and `train.force` is not set.
    """
    params = stage.params.train
    if params.method.name != "sirl" or params.force:
        return
    ready = records.read_json(stage.layout.profile("base"))["readiness"]
    if ready["verdict"] == "none":
        raise TrainingError(
            f"the base model shows no instinct to reinforce: {'; '.join(ready['reasons'])}",
            "Start from a model that refuses (base.adapter), or set train.force",
        )


def _line(row: dict[str, float], params: TrainParams) -> str:
    """What the live view shows of a step; a method that does not sample has fewer numbers."""
    shown = [
        ("loss", "loss {:.4f}", 1.0),
        ("entropy", "entropy {:.2f}", 1.0),
        ("kl", "kl {:.4f}", 1.0),
        ("refusal/train", "refused {:.0f} %", 100.0),
        ("refusal/probe", "probe {:.0f} %", 100.0),
    ]
    words = [word.format(scale * row[name]) for name, word, scale in shown if name in row]
    if "length" in row and "seconds" in row:
        tokens = row["length"] * params.prompts_per_step * params.group
        words.append(f"{tokens / row['seconds']:.0f} tokens/s")
    return ", ".join(words)


def _prompts(stage: Stage, split: Split) -> list[Prompt]:
    return list(records.read(stage.layout.prompts(split), Prompt))


def _key(stage: Stage, device: str, base: str) -> str:
    """Hash of all that decides the result, the code included: what is changed never picks up an old
    checkpoint. `base` is the digest of the model that training begins with."""
    prompts = [stage.layout.prompts(split) for split in ("train", "anchor", "probe")]
    folders = [Path(package.__path__[0]) for package in (generation, training)]
    code = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    code += [Path(module.__file__ or "") for module in (entropy, refusal)]
    parts = {
        "params": stage.params.train.model_dump(mode="json"),
        "seed": stage.params.seed,
        "device": device,
        "model": base,
        "prompts": [records.digest_file(path) for path in prompts],
        "inputs": inputs.read(stage.params.train, stage.layout),
        "code": [records.digest_file(path) for path in code],
    }
    return records.digest_json(parts)[:16]


def _write(stage: Stage, result: Result, base: str) -> None:
    """Writes all but the model. `base` is the digest of the model that training began with."""
    layout = stage.layout
    records.write_json(layout.train_steps, [_plain(row) for row in result.steps])
    records.write(layout.train_samples, result.samples)
    alarm = result.alarm
    records.write_json(
        layout.train_summary,
        {
            "models": {"base": base, "trained": model_files.digest(layout.model("trained"))},
            "steps_run": len(result.steps),
            "healthy_step": result.healthy_step,
            "stopped": alarm and {"rule": alarm.rule, "step": alarm.step, "detail": alarm.detail},
            "base_probe": result.base_probe,
            "skipped_long": result.skipped_long,
            "unlabelled": result.unlabelled,
            "first": _plain(result.steps[0]) if result.steps else None,
            "last": _plain(result.steps[-1]) if result.steps else None,
        },
    )
    for path in (layout.train_steps, layout.train_summary):
        stage.tracker.artifact(path)


def _plain(row: dict[str, float]) -> dict[str, float]:
    """A step's metrics without the clock, so that equal runs write equal bytes."""
    return {k: round(v, 6) for k, v in row.items() if k != "seconds"}


if __name__ == "__main__":
    raise SystemExit(main("train", run))

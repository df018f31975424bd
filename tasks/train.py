"""Stage train: SIRL on the base model. Resumes where it was killed; the out is the final model
alone."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from sirl import records
from sirl.layout import Split
from sirl.models import resolve_device
from sirl.progress import bar
from sirl.records import Prompt
from tasks.stage import Stage, main

if TYPE_CHECKING:
    from sirl.training.sirl import Result

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Trains, then writes model, steps, samples and summary; the resume state is removed last."""
    device = resolve_device(stage.params.runtime.device)
    from sirl.training.sirl import Data, train

    layout, params = stage.layout, stage.params.train
    data = Data(*(_prompts(stage, split) for split in ("train", "anchor", "probe")))
    state = layout.state("train", _key(stage))
    progress = iter(bar(range(params.steps), "training", params.steps))

    def on_step(row: dict[str, float]) -> None:
        next(progress, None)
        log.info(
            "step %d/%d entropy %.2f kl %.4f refused %.0f %% %s",
            row["step"],
            params.steps,
            row["entropy"],
            row["kl"],
            100 * row["refusal/train"],
            f"probe {100 * row['refusal/probe']:.0f} %" if "refusal/probe" in row else "",
        )
        stage.tracker.metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))

    result = train(
        layout.model("base"),
        layout.model("trained"),
        state,
        data,
        params,
        seed=stage.params.seed,
        device=device,
        on_step=on_step,
    )
    _write(stage, result)
    shutil.rmtree(state, ignore_errors=True)


def _prompts(stage: Stage, split: Split) -> list[Prompt]:
    return list(records.read(stage.layout.prompts(split), Prompt))


def _key(stage: Stage) -> str:
    """Hash of all that decides the result: a changed config never picks up an old checkpoint."""
    inputs = [stage.layout.prompts(split) for split in ("train", "anchor", "probe")]
    parts = {
        "params": stage.params.train.model_dump(mode="json"),
        "seed": stage.params.seed,
        "model": records.digest_folder(stage.layout.model("base")),
        "prompts": [records.digest_file(path) for path in inputs],
    }
    return records.digest_json(parts)[:16]


def _write(stage: Stage, result: Result) -> None:
    layout = stage.layout
    records.write_json(layout.train_steps, [_plain(row) for row in result.steps])
    records.write(layout.train_samples, result.samples)
    alarm = result.alarm
    records.write_json(
        layout.train_summary,
        {
            "steps_run": len(result.steps),
            "healthy_step": result.healthy_step,
            "stopped": alarm and {"rule": alarm.rule, "step": alarm.step, "detail": alarm.detail},
            "base_probe": result.base_probe,
            "skipped_long": result.skipped_long,
            "first": _plain(result.steps[0]),
            "last": _plain(result.steps[-1]),
        },
    )
    for path in (layout.train_steps, layout.train_summary):
        stage.tracker.artifact(path)


def _plain(row: dict[str, float]) -> dict[str, float]:
    """A step's metrics without the clock, so that equal runs write equal bytes."""
    return {k: round(v, 6) for k, v in row.items() if k != "seconds"}


if __name__ == "__main__":
    raise SystemExit(main("train", run))

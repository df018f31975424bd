"""Fills the prompt splits from their sources, cleaned and disjoint."""

from __future__ import annotations

from sirl import records
from sirl.prompts import splits
from tasks.stage import Stage, main


def run(stage: Stage) -> None:
    """Writes one JSONL of prompts a split, and the summary."""
    chosen = splits.prepare(stage.params.prepare, stage.params.seed)
    for name, split in chosen.items():
        records.write(stage.layout.prompts(name), split.prompts)
    summary = splits.summary(stage.params.prepare, chosen)
    records.write_json(stage.layout.prompts_summary, summary)
    stage.tracker.metrics({f"prompts/{name}": len(s.prompts) for name, s in chosen.items()})


if __name__ == "__main__":
    raise SystemExit(main("prepare", run))

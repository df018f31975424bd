"""Stage report: one HTML page out of everything the other stages wrote."""

from __future__ import annotations

from sirl import records
from sirl.report import page
from sirl.report.loading import load
from tasks.stage import Stage, main


def run(stage: Stage) -> None:
    """Loads, builds and writes the page."""
    text = page.build(load(stage.layout, stage.params))
    records.write_bytes(stage.layout.report, [text.encode()])
    stage.tracker.artifact(stage.layout.report)


if __name__ == "__main__":
    raise SystemExit(main("report", run))

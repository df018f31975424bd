"""Stage report, run as a stage on a made-up run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sirl import config
from sirl.errors import DataError
from sirl.layout import Layout
from tasks import report
from tasks.stage import Stage


class Tracker:
    """Keeps what the stage reports."""

    def __init__(self) -> None:
        self.artifacts: list[Path] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def artifact(self, path: Path) -> None:
        self.artifacts.append(path)

    def tags(self, values: Mapping[str, str]) -> None: ...


def test_the_stage_writes_one_page_and_logs_it(run: Callable[..., Layout]) -> None:
    layout, tracker = run(), Tracker()
    report.run(Stage("report", config.load(layout.params), layout, tracker))
    html = layout.report.read_text(encoding="utf-8")
    assert html.lstrip().startswith("<!doctype html>")
    assert tracker.artifacts == [layout.report]
    assert [path.name for path in layout.report.parent.iterdir()] == ["index.html"]


def test_a_missing_input_leaves_the_old_page(run: Callable[..., Layout]) -> None:
    layout = run()
    layout.report.parent.mkdir(parents=True)
    layout.report.write_text("old")
    layout.decision.unlink()
    with pytest.raises(DataError, match="dvc repro gate"):
        report.run(Stage("report", config.load(layout.params), layout, Tracker()))
    assert layout.report.read_text() == "old"


def test_the_report_imports_nothing_heavy() -> None:
    code = (
        "import sys, sirl.report.page, sirl.report.card, sirl.report.loading;"
        "heavy = {'torch', 'transformers', 'mlflow', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

"""Stage train on a tiny model: what it writes for methods with other steps than SIRL, or none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from sirl import config, model_files, records
from sirl.generation import best_of_n
from sirl.layout import Layout
from sirl.records import Prompt
from sirl.training.run import Result
from tasks import train
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]


class Tracker:
    """Keeps what a stage reports."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        raise AssertionError("there is no step")

    def artifact(self, path: Path) -> None:
        self.seen.append(path.name)


@pytest.fixture
def stage(tmp_path: Path, tiny_model: Path) -> Stage:
    """A project that is ready for stage train."""
    layout = Layout(tmp_path)
    shutil.copytree(tiny_model, layout.model("base"))
    for split in ("train", "anchor", "probe"):
        rows = [Prompt(f"{split}/{i}", f"Tell me of tree {i}.", "t", "benign") for i in range(4)]
        records.write(layout.prompts(split), rows)
    settings = ["train.method={name: best_of_n, n: 2}", "runtime.device=cpu"]
    params = config.load(ROOT / "params.yaml", settings)
    return Stage("train", params, layout, Tracker())  # type: ignore[arg-type]


def test_a_method_without_steps(stage: Stage) -> None:
    train.run(stage)
    layout = stage.layout
    assert best_of_n.read(layout.model("trained")) == 2
    assert records.read_json(layout.train_steps) == []
    assert layout.train_samples.read_bytes() == b""
    summary = records.read_json(layout.train_summary)
    assert [summary[key] for key in ("steps_run", "healthy_step", "first", "last")] == [
        0,
        0,
        None,
        None,
    ]
    assert stage.tracker.seen == ["steps.json", "summary.json"]  # type: ignore[attr-defined]


def test_steps_without_entropy(stage: Stage) -> None:
    stage.layout.model("trained").mkdir()
    first = {"step": 1.0, "loss": 0.7, "grad_norm": 2.0, "seconds": 0.3}
    last = {**first, "step": 2.0, "refusal/probe": 0.5}
    train._write(stage, Result([first, last], [], 2, None, 0.0, skipped_long=0, unlabelled=3), "")
    summary = records.read_json(stage.layout.train_summary)
    assert summary["last"] == {"step": 2.0, "loss": 0.7, "grad_norm": 2.0, "refusal/probe": 0.5}
    assert summary["unlabelled"] == 3
    assert train._line(last, stage.params.train) == "loss 0.7000, probe 50 %"


def test_what_is_no_part_of_the_base_is_no_part_of_the_key(stage: Stage) -> None:
    def key() -> str:
        return train._key(stage, "cpu", model_files.digest(stage.layout.model("base")))

    before = key()
    (stage.layout.model("base") / "pytorch_model.bin").write_text("never read")
    assert key() == before
    (stage.layout.model("base") / "tokenizer_config.json").write_text("{}")
    assert key() != before

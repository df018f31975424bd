"""Stage prepare for real, on packaged prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sirl import config, records
from sirl.layout import SPLITS, Layout
from sirl.records import Prompt
from tasks import prepare
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]


class Tracker:
    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.seen.update(values)

    def artifact(self, path: Path) -> None:
        raise AssertionError("this stage logs no artifact")

    def tags(self, values: Mapping[str, str]) -> None:
        raise AssertionError("this stage sets no tags")


def run(root: Path) -> tuple[Layout, Tracker]:
    tracker = Tracker()
    params = config.load(ROOT / "params.yaml")
    prepare.run(Stage("prepare", params, Layout(root), tracker))
    return Layout(root), tracker


def test_the_default_params_fill_every_split(tmp_path: Path) -> None:
    layout, tracker = run(tmp_path)
    params = config.load(ROOT / "params.yaml").prepare
    summary = records.read_json(layout.prompts_summary)["splits"]
    ids: list[str] = []
    for split in SPLITS:
        rows = list(records.read(layout.prompts(split), Prompt))
        assert len(rows) == getattr(params, split).limit == summary[split]["count"]
        assert tracker.seen[f"prompts/{split}"] == len(rows)
        ids += [row.id for row in rows]
    assert len(ids) == len(set(ids))


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    digests = [records.digest_folder(run(tmp_path / name)[0].artifacts) for name in "ab"]
    assert digests[0] == digests[1]


def test_the_digest_of_a_split_is_that_of_its_file(tmp_path: Path) -> None:
    layout, _ = run(tmp_path)
    summary = records.read_json(layout.prompts_summary)["splits"]
    for split in SPLITS:
        assert summary[split]["digest"] == records.digest_file(layout.prompts(split))

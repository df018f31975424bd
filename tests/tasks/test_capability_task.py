"""Stage capability for real, on a tiny model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sirl import config, records
from sirl.errors import ConfigError
from sirl.generation import Generator, Request, Sampling, TransformersBackend
from sirl.layout import Layout
from sirl.records import CapabilityItem, Completion
from tasks import capability
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]
BENCHMARKS = [
    {"name": "knowledge", "max_new_tokens": 2},
    {"name": "code_cloze", "count": 5},
    {"name": "reasoning_gym", "task": "number_sequence", "count": 6, "choices": 4},
]


class Tracker:
    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.seen.update(values)

    def artifact(self, path: Path) -> None:
        raise AssertionError("this stage logs no artifact")

    def tags(self, values: Mapping[str, str]) -> None:
        raise AssertionError("this stage sets no tags")


class Counting(TransformersBackend):
    """The real backend, which counts its chats and may be killed at the first likelihood. It has
    the parameters of the real one, so the resume state is the same."""

    _mortal: bool = False
    _chats: list[str]

    def open(self, model: Path, device: str) -> Generator:
        real, mortal, chats = super().open(model, device), self._mortal, self._chats

        class Counted:
            def generate(
                self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
            ) -> Iterator[Completion]:
                for done in real.generate(requests, sampling, seed=seed):
                    chats.append(done.id)
                    yield done

            def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
                if mortal:
                    raise KeyboardInterrupt
                return real.loglikelihoods(pairs)

        return Counted()


def stage(root: Path, tiny_model: Path, benchmarks: list[dict[str, Any]] = BENCHMARKS) -> Stage:
    layout = Layout(root)
    if not layout.model("base").exists():
        layout.model("base").parent.mkdir(parents=True)
        layout.model("base").symlink_to(tiny_model, target_is_directory=True)
    values = config.read_yaml(ROOT / "params.yaml") | {
        "runtime": {"device": "cpu"},
        "capability": {"benchmarks": benchmarks},
    }
    params = config.validate(values, where="test")
    return Stage("capability@base", params, layout, Tracker(), "base")


def with_backend(here: Stage, *, mortal: bool) -> tuple[Stage, list[str]]:
    chats: list[str] = []
    backend = Counting()
    object.__setattr__(backend, "_mortal", mortal)
    object.__setattr__(backend, "_chats", chats)
    params = here.params.model_copy(update={"backend": backend})
    return Stage(here.name, params, here.layout, Tracker(), "base"), chats


def test_items_are_sorted_and_the_summary_counts_them(tmp_path: Path, tiny_model: Path) -> None:
    here = stage(tmp_path, tiny_model)
    capability.run(here)
    rows = list(records.read(here.layout.capability_items("base"), CapabilityItem))
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    said = records.read_json(here.layout.capability("base"))["benchmarks"]
    assert {label: entry["n"] for label, entry in said.items()} == {
        "code_cloze": 5,
        "knowledge": 168,
        "reasoning_gym:number_sequence": 6,
    }
    for entry in said.values():
        assert entry.keys() == {"score", "low", "high", "n", "metric"}
        assert 0 <= entry["low"] <= entry["score"] <= entry["high"] <= 1
    assert isinstance(here.tracker, Tracker)
    assert here.tracker.seen.keys() == said.keys()
    assert list((tmp_path / ".sirl" / "state").glob("*/finished"))  # until DVC has the out


def test_a_killed_stage_goes_on_with_the_next_benchmark(tmp_path: Path, tiny_model: Path) -> None:
    whole = stage(tmp_path / "whole", tiny_model)
    capability.run(whole)
    here = stage(tmp_path / "killed", tiny_model)
    mortal, first = with_backend(here, mortal=True)
    with pytest.raises(KeyboardInterrupt):
        capability.run(mortal)
    assert len(first) == 168
    assert not here.layout.capability_items("base").exists()
    resumed, second = with_backend(here, mortal=False)
    capability.run(resumed)
    assert second == []
    for path in (Layout.capability_items, Layout.capability):
        one, two = path(whole.layout, "base"), path(here.layout, "base")
        assert one.read_bytes() == two.read_bytes()


def test_twins_are_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    twins = [{"name": "knowledge"}, {"name": "knowledge", "max_new_tokens": 9}]
    with pytest.raises(ConfigError, match="knowledge is there 2 times"):
        capability.run(stage(tmp_path, tmp_path / "no-model", twins))

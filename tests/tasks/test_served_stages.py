"""Stages whose model is behind a server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sirl import records
from sirl.generation import OpenAIBackend, TransformersBackend
from sirl.generation.openai import served_name
from sirl.generation.transformers import TransformersGenerator
from sirl.layout import Layout
from sirl.records import ProfiledResponse, Transcript
from tasks import attack, profile
from tasks.stage import Stage
from tests.generation.openai_server import OpenAIServer, serving
from tests.tasks.test_evaluation_tasks import Tracker, stage


def behind(url: str, here: Stage) -> Stage:
    params = here.params.model_copy(update={"backend": OpenAIBackend(urls=(url,))})
    return Stage(here.name, params, here.layout, Tracker(), "base")


def answers(root: Path) -> list[tuple[str, str]]:
    rows = records.read(Layout(root).transcripts("base"), Transcript)
    return [(row.id, row.response) for row in rows if row.finish != "error"]


def test_attack_through_a_server_is_attack_here(tmp_path: Path, tiny_model: Path) -> None:
    local = TransformersGenerator.load(tiny_model, device="cpu", dtype="float32", batch_tokens=2048)
    there = OpenAIServer(local, served_name(tiny_model))
    said = {"error": {"message": "maximum context length is 9 tokens"}}
    there.troubles = [(400, {}, said)]
    with serving(there) as url:
        served = behind(url, stage(tmp_path / "served", tiny_model))
        attack.run(served)
    here = stage(tmp_path / "here", tiny_model)
    params = here.params.model_copy(update={"backend": TransformersBackend(dtype="float32")})
    attack.run(Stage(here.name, params, here.layout, Tracker(), "base"))
    assert len(answers(tmp_path / "here")) == 15
    assert len(answers(tmp_path / "served")) == 14
    assert set(answers(tmp_path / "served")) < set(answers(tmp_path / "here"))
    rows = list(records.read(Layout(tmp_path / "served").transcripts("base"), Transcript))
    (lost,) = [row for row in rows if row.finish == "error"]
    assert lost.note == "context window exceeded: maximum context length is 9 tokens"
    assert all(row.entropy is None for row in rows)
    assert served.tracker.seen["errors"] == 1  # type: ignore[attr-defined]


def test_profile_needs_entropies_and_says_where_they_come_from(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = behind("http://127.0.0.1:9/v1", stage(tmp_path, tiny_model))
    with caplog.at_level(logging.INFO):
        profile.run(here)
    assert "backend openai tells no entropy; transformers does" in caplog.text
    rows = list(records.read(here.layout.responses("base"), ProfiledResponse))
    assert rows and all(row.entropies for row in rows)

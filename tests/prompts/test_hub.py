"""The hub source against a data set in a folder, which `datasets` loads as it loads a hub id."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sirl.errors import DataError, ServiceError
from sirl.prompts import HubSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        '{"prompt": "Pick a lock", "is_safe": false, "n": 1}\n'
        '{"prompt": "Bake bread", "is_safe": true, "n": 2}\n'
    )
    return folder


def test_it_reads_the_column_and_no_label(dataset: Path) -> None:
    source = HubSource(kind="harmful", id=str(dataset), revision=COMMIT)
    prompts = list(source.prompts())
    assert [prompt.text for prompt in prompts] == ["Pick a lock", "Bake bread"]
    assert {prompt.kind for prompt in prompts} == {"harmful"}


def test_a_wrong_column_is_said_with_the_choices(dataset: Path) -> None:
    source = HubSource(kind="harmful", id=str(dataset), revision=COMMIT, column="text")
    with pytest.raises(DataError, match=r"no column 'text'.*prompt, is_safe, n"):
        list(source.prompts())


def test_a_column_of_numbers_is_no_prompt(dataset: Path) -> None:
    source = HubSource(kind="harmful", id=str(dataset), revision=COMMIT, column="n")
    with pytest.raises(DataError, match="row 1: not text"):
        list(source.prompts())


def test_a_data_set_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    source = HubSource(kind="harmful", id=str(tmp_path / "none"), revision=COMMIT)
    with pytest.raises(ServiceError, match="could not be loaded") as caught:
        list(source.prompts())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", ["main", "0123456", COMMIT.upper()])
def test_only_a_full_commit_pins_a_revision(revision: str) -> None:
    with pytest.raises(ValidationError, match="revision"):
        HubSource(kind="harmful", id="a/b", revision=revision)

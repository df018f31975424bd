"""How a preset and overrides are laid over params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import settings
from sirl.errors import ConfigError

BASE = {"seed": 1, "train": {"steps": 24, "beta": 0.1}, "backend": {"name": "a", "of_a": 1}}


def test_sections_are_merged_key_by_key() -> None:
    merged = settings.laid_over(BASE, {"train": {"steps": 2}, "name": "x"})
    assert merged["train"] == {"steps": 2, "beta": 0.1}
    assert merged["seed"] == 1
    assert merged["name"] == "x"


def test_another_kind_replaces_the_section() -> None:
    assert settings.laid_over(BASE, {"backend": {"name": "b"}})["backend"] == {"name": "b"}
    same = settings.laid_over(BASE, {"backend": {"name": "a", "of_a": 2}})
    assert same["backend"] == {"name": "a", "of_a": 2}


def test_a_preset_is_not_changed_by_merging() -> None:
    preset = {"train": {"steps": 2}}
    settings.laid_over(BASE, preset)["train"]["steps"] = 9
    assert preset == {"train": {"steps": 2}}
    assert BASE["train"] == {"steps": 24, "beta": 0.1}


def test_overrides_win_over_the_preset(project: Path) -> None:
    values = settings.effective(project, "quick", ["train.steps=7"])
    assert values["train"]["steps"] == 7
    assert settings.effective(project, "quick", [])["train"]["steps"] == 2


def test_a_preset_may_be_a_file(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 3}")
    assert settings.effective(project, str(file), [])["train"]["steps"] == 3


def test_mistakes_are_named_with_the_choices(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown preset 'quik'\. Choose from: quick"):
        settings.effective(project, "quik", [])
    with pytest.raises(ConfigError, match=r"unknown key train\.stepz"):
        settings.effective(project, None, ["train.stepz=1"])
    with pytest.raises(ConfigError, match="does not exist"):
        settings.effective(project, "nowhere.yaml", [])

"""Every preset is valid over params.yaml, and the paper's presets hold the paper's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import settings, shapes
from sirl import config
from sirl.attacks import KINDS
from sirl.attacks.search import SearchAttack
from sirl.config import Params
from sirl.generation.assistant import OwnModel
from sirl.models import HubModel
from sirl.prompts.hub import HubSource

REPO = Path(__file__).parents[1]
PRESETS = sorted(path.stem for path in (REPO / "presets").glob("*.yaml"))
PAPER = ("llama-3.1-8b", "llama-3.2-3b", "qwen2.5-3b", "qwen2.5-7b")


def load(preset: str) -> Params:
    values = settings.effective(REPO, preset, [])
    return config.validate(values, where=preset)


def test_there_are_presets() -> None:
    assert set(PRESETS) == {*PAPER, "smoke", "attack-full"}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_of_its_own_name(preset: str) -> None:
    default = config.load(REPO / "params.yaml")
    assert load(preset).name != default.name  # it registers a model of its own


@pytest.mark.parametrize("preset", PAPER)
def test_the_papers_numbers(preset: str) -> None:
    params = load(preset)
    train = params.train
    assert train.prompts_per_step * train.group == 512
    assert (train.group, train.steps, train.temperature) == (4, 30, 1.0)
    assert (train.learning_rate, train.beta, train.clip) == (1e-6, 0.001, 0.2)
    assert (train.max_prompt_tokens, train.max_new_tokens) == (1024, 3072)
    assert train.anchor is None
    assert params.runtime.device == "cuda"
    assert (train.dtype, getattr(params.backend, "dtype", None)) == ("bfloat16", "bfloat16")
    (source,) = params.prepare.train.sources
    assert isinstance(source, HubSource)
    assert (source.id, source.column) == ("PKU-Alignment/PKU-SafeRLHF", "prompt")
    assert params.prepare.train.limit == 15000


@pytest.mark.parametrize("preset", PAPER)
def test_models_are_pinned_and_their_size_is_known(preset: str) -> None:
    model = load(preset).base.model
    assert isinstance(model, HubModel)
    assert len(model.revision) == 40
    assert preset.split("-")[-1] in model.id.lower()
    assert shapes.of(model) is not None


def test_attack_full_holds_every_attack_that_needs_no_file_of_the_users() -> None:
    params = load("attack-full")
    named = {attack.name for attack in params.attack.attacks}
    every = {kind.model_fields["name"].default for kind in KINDS if "file" not in kind.needs}
    assert named == every
    assert isinstance(params.attack.attacker, OwnModel)
    default = config.load(REPO / "params.yaml")
    assert params.attack.attacker.model == default.base.model
    unbounded = {attack.name for attack in params.attack.attacks if not _bounded(attack)}
    assert not unbounded
    for section in ("base", "prepare", "train", "capability"):  # out of the cache of `make run`
        assert getattr(params, section) == getattr(default, section)


def _bounded(attack: object) -> bool:
    return not isinstance(attack, SearchAttack) or (attack.budget.queries or 99) <= 9


def test_smoke_is_small() -> None:
    params = load("smoke")
    assert params.train.steps <= 2
    assert params.prepare.train.limit >= params.train.prompts_per_step
    assert params.base == config.load(REPO / "params.yaml").base

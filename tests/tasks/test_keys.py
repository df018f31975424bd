"""Finished work is kept under a digest of what decides it: any one input changed changes the
digest, and what only says where the work runs does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sirl import (
    attacks,
    capability,
    config,
    entropy,
    generation,
    judges,
    packaged,
    profiling,
    records,
    training,
)
from sirl.judges import refusal
from sirl.layout import Layout
from sirl.records import Prompt
from tasks import attack, judge, profile, train
from tasks import capability as capability_stage
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]
PACKAGES: dict[str, ModuleType] = {
    module.__name__: module for module in (attacks, capability, generation, judges, training)
}
MODULES: dict[str, ModuleType] = {
    module.__name__: module for module in (entropy, packaged, profiling, refusal)
}
SPLITS = ("train", "anchor", "probe", "behaviours", "benign")


class World:
    """Everything that a key may depend on: params.yaml, files, the device, the code."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = Layout(root)
        self.device = "cpu"
        root.mkdir(exist_ok=True, parents=True)
        monkeypatch.chdir(root)
        self.write(root / "m/config.json", "{}")
        self.reward = self.write(root / "reward/config.json", "{}")
        self.asked = self.write(root / "asked/config.json", "{}")
        self.task = self.write(root / "task.yaml", "task: t")
        self.settings: list[str] = [
            "attack.attacks=[{name: template, path: inputs/t.jsonl}, {name: prefill}]",
            "attack.attacker={name: own, model: {name: local, path: asked}}",
            "train.method={name: reward_model, model: reward}",
            "judge.judges=[{name: strongreject, model: "
            "{name: own, model: {name: local, path: asked}}}]",
            "capability.benchmarks=[{name: lm_eval, task: task.yaml}]",
            "backend={name: openai, urls: ['http://127.0.0.1:9/v1']}",
        ]
        self.model = self.write(root / "artifacts/models/base/model.safetensors", "weights")
        self.template = self.write(root / "inputs/t.jsonl", "{}")
        self.transcripts = self.write(self.layout.transcripts("base"), "said")
        for split in SPLITS:
            records.write(self.layout.prompts(split), [Prompt("p", split, "t", "benign")])
        for name, package in PACKAGES.items():
            self.write(root / "code" / name / "b.py", name)
            self.write(root / "code" / name / "a.py", name)
            monkeypatch.setattr(package, "__path__", [str(root / "code" / name)])
        for name, module in MODULES.items():
            self.write(root / "code" / f"{name}.py", name)
            monkeypatch.setattr(module, "__file__", str(root / "code" / f"{name}.py"))

    def write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def edit(self, path: Path) -> None:
        with path.open("a") as stream:
            stream.write("#")

    def key(self, name: str) -> str:
        """Where the stage would look for finished work."""
        params = config.load(ROOT / "params.yaml", self.settings)
        stage: Any = Stage(f"{name}@base", params, self.layout, None, "base")  # type: ignore[arg-type]
        digest = records.digest_folder(self.layout.model("base"))
        keys: dict[str, Callable[[], str]] = {
            "attack": lambda: attack._context(stage, self.device, digest),
            "capability": lambda: capability_stage._context(stage, self.device, digest),
            "judge": lambda: judge._context(
                params.judge, self.layout, self.layout.transcripts("base"), self.device
            ),
            "profile": lambda: profile._context(params, self.device, digest),
            "train": lambda: train._key(stage, self.device, digest),
        }
        return keys[name]()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


STAGES = ("attack", "capability", "judge", "profile", "train")
CODE = {
    "attack": ("sirl.attacks", "sirl.generation", "sirl.judges", "sirl.entropy"),
    "capability": ("sirl.capability", "sirl.generation", "sirl.packaged"),
    "judge": ("sirl.generation", "sirl.judges"),
    "profile": (
        "sirl.attacks",
        "sirl.generation",
        "sirl.entropy",
        "sirl.profiling",
        "sirl.judges.refusal",
    ),
    "train": ("sirl.training", "sirl.generation", "sirl.entropy", "sirl.judges.refusal"),
}
OTHER_BACKEND = "backend={name: transformers, dtype: float32}"
SETTINGS = {
    "attack": (
        "seed=1",
        OTHER_BACKEND,
        "attack.sampling.max_new_tokens=3",
        "attack.sampling.temperature=0.5",
        "attack.judge={name: linear}",
        "attack.attacker={name: own, model: {name: local, path: m}}",
    ),
    "capability": (OTHER_BACKEND,),
    "judge": (),
    "profile": (
        "seed=1",
        OTHER_BACKEND,
        "profile.samples=3",
        "profile.sampling.max_new_tokens=3",
        "profile.sampling.temperature=0.5",
    ),
    "train": (
        "seed=1",
        "train.beta=0.5",
        "train.reward_temperature=0.5",
        "train.method={name: sirl, entropy_floor: 0.5}",
        "train.lora={rank: 2}",
        "train.guards.every=3",
    ),
}
FILES = {
    "attack": ("model", "template", "asked"),
    "capability": ("model", "task"),
    "judge": ("transcripts", "asked"),
    "profile": ("model",),
    "train": ("model", "reward"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_any_setting_that_decides_changes_the_key(stage: str, world: World) -> None:
    settings, keys = world.settings, {world.key(stage)}
    for setting in SETTINGS[stage]:
        world.settings = [*settings, setting]
        keys.add(world.key(stage))
    assert len(keys) == 1 + len(SETTINGS[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_any_file_that_is_read_changes_the_key(stage: str, world: World) -> None:
    paths: list[Path] = [getattr(world, name) for name in FILES[stage]]
    if stage == "train":
        paths += [world.layout.prompts(split) for split in ("train", "anchor", "probe")]
    seen = {world.key(stage)}
    for path in paths:
        world.edit(path)
        seen.add(world.key(stage))
    assert len(seen) == 1 + len(paths)


@pytest.mark.parametrize("stage", STAGES)
def test_any_code_that_decides_changes_the_key(stage: str, world: World) -> None:
    code = world.layout.root / "code"
    seen = {world.key(stage)}
    for name in CODE[stage]:
        world.edit(code / name / "b.py" if name in PACKAGES else code / f"{name}.py")
        seen.add(world.key(stage))
    assert len(seen) == 1 + len(CODE[stage])
    for name in {*PACKAGES, *MODULES} - {*CODE[stage]}:
        world.edit(code / name / "b.py" if name in PACKAGES else code / f"{name}.py")
    assert world.key(stage) in seen


@pytest.mark.parametrize("stage", ("attack", "judge"))
def test_a_judge_s_data_is_code(stage: str, world: World) -> None:
    before = world.key(stage)
    world.write(world.layout.root / "code/sirl.judges/linear.json", "{}")
    assert world.key(stage) != before


@pytest.mark.parametrize("stage", STAGES)
def test_another_device_is_another_key(stage: str, world: World) -> None:
    before = world.key(stage)
    world.device = "cuda"
    assert world.key(stage) != before


@pytest.mark.parametrize("stage", STAGES)
def test_where_it_runs_and_how_much_is_asked_is_no_part_of_the_key(
    stage: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.key(stage)
    world.settings += ["backend.urls=['http://127.0.0.1:8/v1']", "backend.concurrency=2"]
    world.settings += ["attack.behaviours=3", "attack.attacked=2", "attack.benign=1"]
    (world.layout.root / "code/sirl.judges/__pycache__").mkdir()
    assert world.key(stage) == before
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *words: reversed(sorted(listed(*words))))
    assert world.key(stage) == before


@pytest.mark.parametrize("stage", STAGES)
def test_equal_worlds_have_equal_keys(
    stage: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.key(stage)
    assert re.fullmatch("[0-9a-f]{16}", before)
    shutil.rmtree(tmp_path)
    assert World(tmp_path / "elsewhere", monkeypatch).key(stage) == before

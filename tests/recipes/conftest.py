"""The project itself, copied, with a tiny model: what a user types runs for real on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[2]

INSTRUCTIONS = {"name": "instructions"}
TINY = {
    "name": "tiny",
    "prepare": {
        "behaviours": {"sources": [{"name": "harmbench"}], "limit": 8},
        "benign": {"sources": [INSTRUCTIONS], "limit": 8},
        "probe": {"sources": [INSTRUCTIONS], "limit": 4},
        "anchor": {"sources": [INSTRUCTIONS], "limit": 8},
        "train": {"sources": [{"name": "advbench"}], "limit": 16},
    },
    "profile": {"harmful": 6, "benign": 6, "sampling": {"max_new_tokens": 8, "temperature": 1.0}},
    "train": {
        "force": True,  # a model of random weights refuses nothing
        "steps": 4,
        "prompts_per_step": 2,
        "group": 2,
        "learning_rate": 1e-4,
        "max_prompt_tokens": 400,
        "max_new_tokens": 8,
        "micro_batch": 2,
        "dtype": "float32",
        "anchor": {"weight": 1.0, "prompts_per_step": 2, "max_new_tokens": 4},
        "guards": {"every": 1, "min_mean_tokens": 0},
    },
    "attack": {
        "attacks": [{"name": "past_tense"}, {"name": "prefill"}],
        "behaviours": 6,
        "attacked": 4,
        "benign": 6,
        "sampling": {"max_new_tokens": 8},
    },
    "capability": {
        "benchmarks": [{"name": "reasoning_gym", "task": "chain_sum", "count": 8, "choices": 2}]
    },
}

Sirl = Callable[..., "subprocess.CompletedProcess[str]"]


def shell(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder with this Python's programs first in the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ambient = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "SIRL_"))}
    return subprocess.run(
        command,
        cwd=folder,
        env={**ambient, "PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def checkout(folder: Path, model: Path) -> Path:
    """A fresh checkout of this working tree whose params.yaml names a tiny model."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPO, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, folder / name)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    base = {"model": {"name": "local", "path": str(model)}, "adapter": None}
    (folder / "params.yaml").write_text(yaml.safe_dump({**params, **TINY, "base": base}))
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        [*identity, "commit", "--quiet", "-m", "x"],
    ):
        assert shell(folder, "git", *command).returncode == 0
    return folder


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A project in which `sirl run` has run once, and what it said; treat it as read-only."""
    folder = checkout(tmp_path_factory.mktemp("recipe") / "project", tiny_model)
    return folder, shell(folder, sys.executable, "-m", "flows.cli", "run")


@pytest.fixture
def project(finished: tuple[Path, object], tmp_path: Path) -> Path:
    """A copy of the finished project of the test's own."""
    return Path(shutil.copytree(finished[0], tmp_path / "project", symlinks=True))


@pytest.fixture
def sirl(project: Path) -> Sirl:
    """Runs `sirl` in the project."""

    def call(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return shell(project, sys.executable, "-m", "flows.cli", *words, **variables)

    return call


@pytest.fixture
def dvc(project: Path) -> Sirl:
    """Runs `dvc` in the project."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return shell(project, sys.executable, "-m", "dvc", *words)

    return call

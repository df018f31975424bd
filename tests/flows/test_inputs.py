"""The graph itself, with stages that cost nothing: what params.yaml names is overwritten in place,
with bytes of equal number and age, and just the stages that read it are stale."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import graph, plan
from flows.workplace import Workplace, opened
from sirl import inputs
from sirl.errors import SirlError

REPO = Path(__file__).parents[2]

ATTACKED = {"profile@base", "profile@trained", "attack@base", "attack@trained"}
READ_BY: dict[str, set[str]] = {
    "model/model.safetensors": {"base"},
    "adapter/adapter_model.safetensors": {"base"},
    "mine.txt": {"prepare"},
    "templates.jsonl": ATTACKED,
    "attacker/model.safetensors": {"attack@base", "attack@trained"},
    "asked/model.safetensors": {"judge@base", "judge@trained"},
    "tasks of mine/task.yaml": {"capability@base", "capability@trained"},
    "reward/model.safetensors": {"train"},
}
READ_TOO = (
    *("model/config.json", "adapter/adapter_config.json", "replayed.jsonl", "launch.yaml"),
    *("tasks of mine/base.yaml", "tasks of mine/scores.py", "items.jsonl"),
)
NOT_READ = ("model/pytorch_model.bin", "model/original/weights.pth", "tasks of mine/notes.txt")
TASK = """include: base.yaml
dataset_kwargs:
  data_files: {test: %s/items.json*}
process_results: !function scores.of
target_delimiter: "/"
"""


def own(folder: Path) -> dict[str, Any]:
    return {"name": "own", "model": {"name": "local", "path": str(folder)}}


def settings(away: Path) -> dict[str, dict[str, Any]]:
    """A path of every kind, outside the checkout."""
    return {
        "base": {
            "model": {"name": "local", "path": str(away / "model")},
            "adapter": str(away / "adapter"),
        },
        "attack": {
            "attacks": [
                {"name": "template", "path": str(away / "templates.jsonl")},
                {"name": "replay", "paths": [str(away / "replayed.jsonl")]},
            ],
            "attacker": own(away / "attacker"),
        },
        "judge": {"judges": [{"name": "strongreject", "model": own(away / "asked")}]},
        "capability": {
            "benchmarks": [{"name": "lm_eval", "task": str(away / "tasks of mine/task.yaml")}]
        },
        "train": {
            "method": {"name": "reward_model", "model": str(away / "reward")},
            "launch": str(away / "launch.yaml"),
        },
    }


def cheap(stages: dict[str, Any]) -> dict[str, Any]:
    """The stages of dvc.yaml without code to depend on; each but `inputs` writes fixed outs."""
    for name, whole in stages.items():
        stage = whole.get("do", whole)
        made = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())]
        if name != "inputs":
            words = shlex.join([name, *made]).replace("'", "")
            stage["cmd"] = f"{shlex.quote(sys.executable)} make.py {words}"
        stage["deps"] = [dep for dep in stage.get("deps", ()) if dep.startswith("artifacts/")]
    return stages


MAKE = """
import sys
from pathlib import Path

for out in map(Path, sys.argv[2:]):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("{}")
"""


def shell(root: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repro(root: Path) -> set[str]:
    """Plain `dvc repro`. Returns the stages that ran."""
    said = shell(root, sys.executable, "-m", "dvc", "repro")
    return set(re.findall(r"Running stage '(.+)':", said))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("away")
    for name in (*READ_BY, *READ_TOO, *NOT_READ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# one\n" if path.suffix in {".yaml", ".py"} else "one\n")
    (folder / "tasks of mine/task.yaml").write_text("# one\n" + TASK % folder)
    return folder


@pytest.fixture(scope="module")
def place(away: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The project, everything up to date."""
    root = tmp_path_factory.mktemp("graph")
    values = yaml.safe_load((REPO / "params.yaml").read_text())
    for section, laid in settings(away).items():
        values[section] |= laid
    source = {"name": "file", "path": str(away / "mine.txt"), "kind": "harmful"}
    values["prepare"]["train"]["sources"] = [source]
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    stages = cheap(yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"])
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / "make.py").write_text(MAKE)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPO))
        assert "inputs" in repro(root)
        with opened(root, None, []) as here:
            yield here


def rewrite(path: Path, old: str, new: str) -> None:
    """In place: the file stays the same file, as large and as old as before."""
    before = path.stat()
    path.write_text(path.read_text().replace(old, new, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)


@pytest.mark.parametrize("name", READ_BY)
def test_just_what_reads_a_changed_input_is_stale(place: Workplace, away: Path, name: str) -> None:
    rewrite(away / name, "one", "two")
    try:
        assert graph.stale(place) == READ_BY[name]
    finally:
        rewrite(away / name, "two", "one")


def test_each_file_that_is_read_changes_what_is_compared(place: Workplace, away: Path) -> None:
    files = inputs.Files({})
    before = inputs.digests(place.params, files)
    for name in (*READ_BY, *READ_TOO):
        rewrite(away / name, "one", "two")
        assert inputs.digests(place.params, inputs.Files(files.known)) != before, name
        rewrite(away / name, "two", "one")
    for name in NOT_READ:
        rewrite(away / name, "one", "two")
    assert inputs.digests(place.params, inputs.Files(files.known)) == before
    assert graph.stale(place) == frozenset()


def test_dvc_alone_runs_what_reads_a_changed_input_and_that_once(
    place: Workplace, away: Path
) -> None:
    for name in ("mine.txt", "asked/model.safetensors"):
        rewrite(away / name, "one", "two")
    assert repro(place.root) == {"inputs", "prepare", "judge@base", "judge@trained"}
    assert repro(place.root) == {"inputs"}
    for name in ("mine.txt", "asked/model.safetensors"):
        rewrite(away / name, "two", "one")
    repro(place.root)  # from the cache
    assert graph.stale(place) == frozenset()


def test_a_plan_looks_at_the_inputs_and_leaves_the_project_alone(
    place: Workplace, away: Path
) -> None:
    before = place.layout.inputs.read_bytes()
    other = [f"base.model.path={away / 'attacker'}"]
    with opened(place.root, None, other, planning=True) as planned:
        assert graph.stale(planned) == {"base", "report"}
        assert plan.stages(planned, "prepare")["prepare"] == "cached"
    assert place.layout.inputs.read_bytes() == before


def test_what_is_not_there_is_said_in_one_line(place: Workplace, away: Path) -> None:
    (away / "mine.txt").rename(away / "gone.txt")
    try:
        with pytest.raises(SirlError) as caught:
            graph.stale(place)
    finally:
        (away / "gone.txt").rename(away / "mine.txt")
    assert str(caught.value).startswith(
        f"inputs: {away / 'mine.txt'}, which params.yaml names, does not exist. Paths are relative"
    )

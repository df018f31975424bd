"""A small project with real git and DVC whose stages are cheap stand-ins; the code is ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[2]

DVC_YAML = """
stages:
  base:
    cmd: python stand_in.py base
    params: [base]
    outs: [artifacts/base]
  train:
    cmd: python stand_in.py train
    params: [train]
    deps: [artifacts/base, content]
    outs: [artifacts/train]
  judge:
    foreach: [base, trained]
    do:
      cmd: python stand_in.py judge/${item}
      params: [judge]
      deps: [artifacts/train]
      outs: ["artifacts/judge/${item}"]
  gate:
    cmd: python stand_in.py gate
    deps: [artifacts/judge/base, artifacts/judge/trained]
    outs: [artifacts/gate, artifacts/capability]
"""

STAND_IN = '''
"""A stage that notes that it ran, and fails or hangs where it is told to."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

stage = sys.argv[1]
name = stage.partition("/")[0]
Path(".sirl").mkdir(exist_ok=True)
with open(".sirl/ran", "a") as ran:
    ran.write(stage + "\\n")
print("working on", stage)
if os.environ.get("SLOW") == name:
    time.sleep(1)
if os.environ.get("FAILS") == name:
    sys.exit(f"sirl: {name}: the data are wrong. Mend the data")
if os.environ.get("BREAKS") == name:
    raise RuntimeError("a defect")
if Path(".sirl/hang").exists() and name == "train":
    child = subprocess.Popen(["sleep", "300"])
    Path(".sirl/pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(300)


def write(path, value):
    file = Path("artifacts") / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))


if name == "judge":
    rate = 0.125 if stage == "judge/base" else 0.8
    trained = Path("artifacts/train").read_text().strip()
    rates = {"direct": {"rate": rate}, "attacked": {"mean": None}, "benign": {"rate": 0.05}}
    rates["transferred"] = {"attacks": 0}
    write(stage + "/summary.json", rates | {"of": trained})
elif name == "gate":
    checks = [{"name": "direct_gain", "passed": True}, {"name": "over_refusal", "passed": False}]
    write("gate/decision.json", {"passed": False, "checks": checks})
    for role in ("base", "trained"):
        write(f"capability/{role}/summary.json", {"benchmarks": {"sums": {"score": 0.5}}})
else:
    write(stage, Path("content").read_text() if name == "train" else stage)
'''

PROMOTE = """
import os
from pathlib import Path

with open(".sirl/ran", "a") as ran:
    ran.write("promote\\n")
print("12:00:00 __main__ sirl-x: candidate 2, champion 1")
Path(".sirl/environment").write_text(repr(dict(os.environ)))
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "project"
    (folder / "tasks").mkdir(parents=True)
    (folder / "presets").mkdir()
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["base"]["adapter"] = None  # it is not copied
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "stand_in.py").write_text(STAND_IN)
    (folder / "content").write_text("trained")
    (folder / "tasks" / "__init__.py").touch()
    (folder / "tasks" / "promote.py").write_text(PROMOTE)
    (folder / "tasks" / "inputs.py").touch()
    (folder / "presets" / "quick.yaml").write_text("train: {steps: 2}\n")
    (folder / ".gitignore").write_text("/.sirl/\n/artifacts/\n__pycache__/\n")
    shell(folder, "git", "init", "--quiet")
    shell(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    shell(folder, sys.executable, "-m", "dvc", "config", "core.check_update", "false")
    shell(folder, "git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    shell(folder, "git", *identity, "commit", "--quiet", "-m", "start")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A fresh checkout in which nothing has run."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process's environment, fit for stand-ins: our code is found, nothing is sent."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    prefect = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")
    for name in ("MLFLOW_TRACKING_URI", "SIRL_DEBUG", "GIT_DIR", *prefect):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch


@pytest.fixture
def hanging(project: Path) -> Callable[[], list[int]]:
    """Makes stage train hang; the call waits until it does, then gives its and its child's pids."""
    (project / ".sirl").mkdir(exist_ok=True)
    (project / ".sirl" / "hang").touch()
    pids = project / ".sirl" / "pids"

    def call() -> list[int]:
        deadline = time.monotonic() + 60
        while not (pids.exists() and pids.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (project / ".sirl" / "hang").unlink()
        return [int(pid) for pid in pids.read_text().split()]

    return call


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Whether a process runs; a zombie that nobody has waited for does not."""

    def call(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    return call


Sirl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def sirl(project: Path, environment: pytest.MonkeyPatch) -> Sirl:
    """Runs `sirl` in the project."""

    def call(
        *words: str, folder: Path = project, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def ran() -> Callable[[Path], list[str]]:
    """Tells what ran in a folder since the last call, in order."""

    def call(folder: Path) -> list[str]:
        notes = folder / ".sirl" / "ran"
        names = notes.read_text().split() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return names

    return call


def shell(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout

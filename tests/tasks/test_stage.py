"""How a stage starts, what it costs and how it ends: exit code and one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sirl.config import Params
from sirl.errors import DataError
from sirl.layout import Layout
from tasks import stage
from tasks.stage import Stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs `main` as `python -m tasks.gate ARGUMENTS`; returns exit code and standard error."""

    def run(body: Callable[[Stage], None], *arguments: str, per_model: bool = False) -> object:
        monkeypatch.setattr(sys, "argv", ["gate", *arguments])
        code = stage.main("gate", body, per_model=per_model)
        return code, capsys.readouterr().err

    return run  # type: ignore[return-value]


Start = Callable[..., tuple[int, str]]


def failing(error: BaseException) -> Callable[[Stage], None]:
    def body(running: Stage) -> None:
        raise error

    return body


def test_a_stage_gets_its_input_and_leaves_its_cost(start: Start, project: Layout) -> None:
    seen: list[Stage] = []
    block = bytearray(1)

    def body(running: Stage) -> None:
        seen.append(running)
        block.extend(b"x" * (64 << 20))

    assert start(body) == (0, "")
    (running,) = seen
    assert running.name == "gate"
    assert running.params.gate.min_direct_gain > 0
    assert running.layout.params.resolve() == project.params
    cost = json.loads(project.cost("gate").read_text())
    assert cost.keys() == {"seconds", "peak_bytes"}
    assert 0 < cost["seconds"] < 60
    assert len(block) < cost["peak_bytes"] < 1 << 40
    with pytest.raises(ValueError, match="does not run for each model"):
        _ = running.role


def test_a_stage_of_each_model(start: Start, project: Layout) -> None:
    seen: list[str] = []
    assert start(lambda s: seen.append(f"{s.name} {s.role}"), "trained", per_model=True)[0] == 0
    assert seen == ["gate@trained trained"]
    assert project.cost("gate@trained").name == "gate-trained.json"
    assert project.cost("gate@trained").is_file()


@pytest.mark.parametrize(
    ("arguments", "per_model", "wanted"),
    [
        (["--fast"], False, "no arguments"),
        ([], True, "one argument out of base, trained"),
        (["other"], True, "one argument out of base, trained"),
        (["base", "trained"], True, "one argument out of base, trained"),
    ],
)
def test_wrong_arguments(start: Start, arguments: list[str], per_model: bool, wanted: str) -> None:
    code, said = start(failing(AssertionError()), *arguments, per_model=per_model)
    assert code == 2
    assert said == (
        f"sirl: gate: python -m tasks.gate takes {wanted}. All else is read from params.yaml\n"
    )


def test_what_a_user_can_mend_is_one_line(start: Start, project: Layout) -> None:
    code, said = start(failing(DataError("a.jsonl, line 3:\nno text", "Mend\nit")))
    assert (code, said) == (2, "sirl: gate: a.jsonl, line 3: no text. Mend it\n")
    assert not project.cost("gate").exists()


def test_a_full_disk_is_one_line(start: Start) -> None:
    def fill(running: Stage) -> None:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    kept = "Free some disk space and run again; finished work is kept\n"
    assert start(fill) == (2, f"sirl: gate: No space left on device. {kept}")
    named = OSError(errno.ENOSPC, "No space left on device", "artifacts/x")
    assert start(failing(named)) == (
        2,
        f"sirl: gate: No space left on device: artifacts/x. {kept}",
    )


@pytest.mark.parametrize(
    "said",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
    ],
)
def test_a_full_disk_met_by_safetensors_or_torch_is_one_line(start: Start, said: str) -> None:
    """Their words on a full tmpfs: kinds of their own, without an errno."""
    code, line = start(failing(RuntimeError(said)))
    assert code == 2
    assert line.startswith("sirl: gate: No space left on device. Free some disk space")


def test_a_file_that_may_not_be_written_is_one_line(start: Start) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "artifacts/x")
    code, said = start(failing(error))
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("sirl: gate: Permission denied: artifacts/x. Make it writable")


def test_interrupted(start: Start) -> None:
    assert start(failing(KeyboardInterrupt())) == (
        130,
        "sirl: gate: interrupted. Run again to go on; finished work is kept\n",
    )


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), FileNotFoundError(2, "x", "y")])
def test_a_defect_keeps_its_traceback(start: Start, error: Exception) -> None:
    with pytest.raises(type(error)):
        start(failing(error))


def test_debug_shows_the_traceback(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIRL_DEBUG", "1")
    with pytest.raises(DataError):
        start(failing(DataError("x")))


def python(project: Layout, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


def test_as_a_process_an_unknown_key_is_one_line(
    project: Layout, set_params: Callable[..., Params]
) -> None:
    project.params.write_text(project.params.read_text() + "unheard_of: 1\n")
    done = python(project, "tasks.gate")
    assert done.returncode == 2
    assert done.stderr.startswith("sirl: gate: ")
    assert "unheard_of" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" in python(project, "tasks.gate", SIRL_DEBUG="1").stderr


def test_as_a_process_a_server_that_is_down_is_one_line(
    project: Layout, free_port: Callable[[], int]
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = python(project, "tasks.gate", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 2
    assert done.stderr == (
        f"sirl: gate: MLflow at {address} failed: [Errno 111] Connection refused. "
        "Start it, or unset MLFLOW_TRACKING_URI to use the local database\n"
    )


def test_as_a_process_in_a_new_project_it_is_one_line(project: Layout) -> None:
    """The database is made on the way, and says nothing about it."""
    (project.local / "mlflow.db").unlink()
    done = python(project, "tasks.gate")
    assert done.returncode == 2
    missing = "artifacts/judge/base/summary.json does not exist. Run the stage that writes it"
    assert done.stderr == f"sirl: gate: {missing}: dvc repro\n"
    assert (project.local / "mlflow.db").is_file()


def test_threads_are_bounded_unless_the_user_has_bounded_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    stage.bound_threads(3)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_NUM_THREADS")
    stage.bound_threads(0)
    assert os.environ["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))

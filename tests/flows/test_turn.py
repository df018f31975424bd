"""One run at a time, and what a kill of `sirl` alone leaves running ends well."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows import turn
from flows.workplace import opened
from sirl.errors import SirlError

Sirl = Callable[..., "subprocess.CompletedProcess[str]"]
Ran = Callable[[Path], list[str]]

STAGE = """
import time
from pathlib import Path
from sirl import lifeline
lifeline.watch()
print("at work", flush=True)
try:
    time.sleep({seconds})
except KeyboardInterrupt:
    Path("interrupted").touch()
    raise
Path("artifacts").mkdir(exist_ok=True)
Path("artifacts/base").write_text("base")
"""


def killed_while(project: Path, seconds: float, stand_in: str) -> None:
    """Kills `sirl` alone while stage base is at work."""
    (project / "stand_in.py").write_text(stand_in.format(seconds=seconds))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "--to", "base"],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any("at work" in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_second_run_is_refused_at_once(project: Path, environment: pytest.MonkeyPatch) -> None:
    with (
        opened(project, None, []),
        pytest.raises(SirlError, match=r"another run is going on in .*Wait for it"),
        opened(project, None, []),
    ):
        raise AssertionError
    with opened(project, None, []), opened(project, None, [], planning=True):
        pass  # to look costs no turn


def test_a_stage_ends_with_sirl_and_the_next_run_goes_on(
    project: Path, environment: pytest.MonkeyPatch, sirl: Sirl
) -> None:
    killed_while(project, 60, STAGE)
    (project / "stand_in.py").write_text(STAGE.format(seconds=0))
    done = sirl("run", "--to", "base")
    assert done.returncode == 0, done.stderr
    assert (project / "interrupted").exists()
    assert "base" in yaml.safe_load((project / "dvc.lock").read_text())["stages"]


def test_a_stage_that_ends_after_sirl_is_recorded(
    project: Path, environment: pytest.MonkeyPatch, sirl: Sirl
) -> None:
    deaf = STAGE.replace("lifeline.watch()", "")
    killed_while(project, 1, deaf)
    done = sirl("run", "--to", "base")
    assert "waiting for what a killed run left running" in done.stderr
    assert ": unchanged" in done.stdout


def test_what_heeds_nothing_is_killed(
    project: Path,
    environment: pytest.MonkeyPatch,
    hanging: Callable[[], list[int]],
    alive: Callable[[int], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(turn.dvc, "at_work", lambda root: iter(()))
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run"], cwd=project, stdout=subprocess.DEVNULL
    )
    left = hanging()
    process.kill()
    process.wait()
    with turn.taken(project):
        assert not [pid for pid in left if alive(pid)]

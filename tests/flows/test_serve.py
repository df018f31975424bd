"""The servers, for real: up, deployed, a run from another shell, and everything gone at the end."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import serve
from sirl.errors import ServiceError

REPO = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((serve.HOST, 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind((serve.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} is in use\. .* --mlflow-port PORT"):
            serve.require_free(port, "--mlflow-port")


def test_a_server_that_ends_by_itself_is_named_with_its_log(tmp_path: Path) -> None:
    with (
        serve.child("prefect-server", ["no_such_module"], tmp_path, {}) as process,
        pytest.raises(ServiceError, match=r"prefect-server ended by itself\. See .*prefect-server"),
    ):
        serve.await_up(f"http://{serve.HOST}:{free_port()}", process, tmp_path)
    assert "no_such_module" in serve.log_of(tmp_path, "prefect-server").read_text()


@pytest.fixture
def served(project: Path, environment: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """`python -m flows.serve` in a project of stand-ins, on ports of its own, greeting read."""
    shutil.copytree(REPO / "flows", project / "flows")
    shutil.copy(REPO / "prefect.yaml", project)
    prefect, mlflow = free_port(), free_port()
    toml = (REPO / "prefect.toml").read_text()
    assert "4200" in toml
    (project / "prefect.toml").write_text(toml.replace("4200", str(prefect)))
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", *ports],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    greeting = [next(process.stdout) for _ in range(9)]
    assert greeting[0].split() == ["Prefect", f"http://{serve.HOST}:{prefect}"]
    assert greeting[1].split() == ["MLflow", f"http://{serve.HOST}:{mlflow}"]
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.services
@pytest.mark.timeout(240)
def test_a_deployed_run_and_an_interrupted_one(
    served: subprocess.Popen[str],
    project: Path,
    ran: Callable[[Path], list[str]],
    hanging: Callable[[], list[int]],
    alive: Callable[[int], bool],
) -> None:
    (project / ".sirl" / "hang").unlink()
    run = [sys.executable, "-m", "prefect", "deployment", "run", "sirl/full"]
    done = subprocess.run(
        [*run, "--watch"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(project) == ["base", "train", "judge/base", "judge/trained", "gate", "promote"]

    (project / "content").write_text("changed")
    (project / ".sirl" / "hang").touch()
    subprocess.run(run, cwd=project, capture_output=True, check=True)
    stage = hanging()
    served.send_signal(signal.SIGINT)
    assert served.wait(timeout=90) == 0
    assert not [pid for pid in stage if alive(pid)]

"""The servers, for real: up, deployed, a run from another shell, and everything gone at the end."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
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


def test_the_password_is_made_up_once_and_for_one_user(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    made = serve.auth(one)
    one.chmod(0o644)
    assert serve.auth(one) == made != serve.auth(other)
    assert len(made) > 40
    assert {path.stat().st_mode & 0o777 for path in (one, other)} == {0o600}


def status(url: str, body: dict[str, object] | None = None, **headers: str) -> int:
    """What a server answers to one request."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **headers}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, sent), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def refuse_strangers(prefect: int, mlflow: int, password: str) -> None:
    """Neither a foreign page nor another user has Prefect or MLflow do anything."""
    api = f"http://{serve.HOST}:{prefect}/api"
    known = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    wrong = {"Authorization": f"Basic {base64.b64encode(b'sirl:guess').decode()}"}
    foreign = {"Origin": "https://evil.example"}
    csrf_token = f"{api}/csrf-token?client=test"
    with urllib.request.urlopen(urllib.request.Request(csrf_token, headers=known)) as reply:
        token = {"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": json.load(reply)["token"]}
    deployments = f"{api}/deployments/filter"
    for headers in ({}, wrong, foreign, {"Host": "evil.example"}):
        assert status(csrf_token, **headers) == 401
        assert status(deployments, {}, **headers, **token) == 401
    assert status(deployments, {}, **known) == 403  # no CSRF token
    assert status(deployments, {}, **known, **token) == 200
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "*"}
    for origin in ("https://evil.example", f"http://{serve.HOST}:{prefect}"):
        request = urllib.request.Request(
            f"{api}/deployments/", headers={"Origin": origin, **ask}, method="OPTIONS"
        )
        try:
            said = urllib.request.urlopen(request, timeout=10).headers
        except urllib.error.HTTPError as error:
            said = error.headers
        assert said["Access-Control-Allow-Origin"] == (None if "evil" in origin else origin)

    tracking = f"http://{serve.HOST}:{mlflow}/api/2.0/mlflow/experiments"
    search = f"{tracking}/search?max_results=1"
    assert status(search) == 200
    assert status(search, Host=f"localhost:{mlflow}") == 200
    for host in ("evil.example", f"10.evil.example:{mlflow}", f"evil.example:{mlflow}"):
        assert status(search, Host=host) == 403
    assert status(f"{tracking}/create", {"name": "x"}, **foreign) == 403


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture
def served(
    project: Path, environment: pytest.MonkeyPatch, ports: tuple[int, int]
) -> Iterator[subprocess.Popen[str]]:
    """`python -m flows.serve` in a project of stand-ins, on ports of its own, greeting read."""
    shutil.copytree(REPO / "flows", project / "flows")
    shutil.copy(REPO / "prefect.yaml", project)
    prefect, mlflow = ports
    toml = (REPO / "prefect.toml").read_text()
    assert "4200" in toml
    (project / "prefect.toml").write_text(toml.replace("4200", str(prefect)))
    options = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", *options],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    greeting = [next(process.stdout) for _ in range(12)]
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
    ports: tuple[int, int],
    alive: Callable[[int], bool],
) -> None:
    refuse_strangers(*ports, serve.auth(project / ".sirl" / "prefect" / "profiles.toml"))
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

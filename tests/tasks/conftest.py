"""Real servers on loopback, one of each kind for all tests that want it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from sirl import config
from sirl.config import Params
from sirl.layout import Layout

ROOT = Path(__file__).parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
AMBIENT = ("AWS_", "MLFLOW_", "SIRL_")


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty"
    path.touch()
    return path


@pytest.fixture(autouse=True)
def own_environment(empty_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the tracking server, store or keys of whoever runs it, or of the last test."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    for name in os.environ:
        if name.startswith(AMBIENT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty_file))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty_file))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, **popen: object) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, from when it accepts connections."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **popen,  # type: ignore[call-overload]
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, f"{command[0]} ended by itself"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.1)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def program(name: str) -> str:
    """An executable that a locked package brings."""
    return str(Path(sys.executable).parent / name)


@pytest.fixture(name="free_port", scope="session")
def free_port_fixture() -> Callable[[], int]:
    return free_port


@pytest.fixture(name="serving", scope="session")
def serving_fixture() -> object:
    return serving


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    port = free_port()
    with serving([program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, folder = free_port(), tmp_path_factory.mktemp("rclone")
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", ",".join(KEYS.values()), str(folder)]
    with serving(command, port, env={**os.environ, "RCLONE_CONFIG": ""}):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that both S3 servers take."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URI of a new database of a real PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, found), os.environ["PATH"]])
    initdb, serve = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if not initdb or not serve:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, user)
        data, port = f"{folder}/data", free_port()
        setup = [initdb, "-D", data, "-U", "sirl", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(setup, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        command = [serve, "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with serving([*command, "-F"], port, user=user, cwd=folder):
            yield f"postgresql+psycopg2://sirl:secret@127.0.0.1:{port}/postgres"


@pytest.fixture(params=["moto", "rclone"])
def s3(request: pytest.FixtureRequest, keys: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint of an S3-speaking server, which the environment names too."""
    endpoint = str(request.getfixturevalue(request.param))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    return endpoint


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its tables: making them takes seconds."""
    from tasks import tracking

    layout = Layout(tmp_path_factory.mktemp("database"))
    tracking.connect(layout).search_experiments()
    return layout.local / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project of its own, also the working directory: params.yaml and an empty registry."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path)
    shutil.copy(ROOT / "params.yaml", layout.params)
    layout.local.mkdir()
    shutil.copy(empty_database, layout.local / "mlflow.db")
    return layout


@pytest.fixture
def set_params(project: Layout) -> Callable[..., Params]:
    """Lays sections over the project's params.yaml."""

    def lay(**sections: object) -> Params:
        values = {**yaml.safe_load(project.params.read_text()), **sections}
        project.params.write_text(yaml.safe_dump(values))
        return config.load(project.params)

    return lay

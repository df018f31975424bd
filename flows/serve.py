"""Prefect's server and a worker, and MLflow's pages, on this machine: `python -m flows.serve`.

All they keep lies under .sirl/. Ctrl-C ends them all, with whatever run is going on.

A deployment may hold a shell command, and the worker runs it: so Prefect answers only to the
password that lies in .sirl/prefect/profiles.toml, and to no page but its own. MLflow refuses pages
and host names that are not its own.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from flows import project
from flows.doctor import answers
from sirl.errors import ServiceError, SirlError
from sirl.layout import Layout

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
AUTH = "PREFECT_API_AUTH_STRING"
START_SECONDS = 120
STOP_SECONDS = 30


def main() -> int:
    """Serves until it is interrupted. Exit code 2 for what the user can mend."""
    parser = argparse.ArgumentParser(description="Serve Prefect and MLflow for this project.")
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    ports = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell may have started us with SIGINT ignored
        signal.signal(stop, signal.default_int_handler)
    try:
        serve(project.find(), ports.prefect_port, ports.mlflow_port)
    except SirlError as error:
        sys.stderr.write(f"sirl: serve: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stdout.write("\nstopped\n")
    return 0


def serve(root: Path, prefect_port: int, mlflow_port: int) -> None:
    """Starts everything, deploys prefect.yaml, says where it is and waits.

    Raises:
        ServiceError: A port is taken, or a server does not come up or ends by itself.
    """
    for port, option in ((prefect_port, "--prefect-port"), (mlflow_port, "--mlflow-port")):
        require_free(port, option)
    api = f"http://{HOST}:{prefect_port}/api"
    environment = settings(root, api)
    server = ["prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
    pages = ["mlflow", "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"]
    pages += ["--allowed-hosts", ",".join(f"{name}:{mlflow_port}" for name in NAMES)]
    pages += ["--cors-allowed-origins", ",".join(origins(mlflow_port))]
    # Not as an argument: it may hold a password, and arguments are everybody's to read.
    tracking = {"MLFLOW_BACKEND_STORE_URI": environment["MLFLOW_TRACKING_URI"]}
    worker = ["prefect", "worker", "start", "--pool", "sirl", "--type", "process", "--limit", "1"]
    with (
        child("prefect-server", server, root, environment) as prefect,
        child("mlflow", pages, root, environment | tracking) as mlflow,
    ):
        await_up(f"{api}/health", prefect, root)
        await_up(f"http://{HOST}:{mlflow_port}/health", mlflow, root)
        prepare(environment)
        deploy(root, environment)
        with child("prefect-worker", worker, root, environment) as working:
            sys.stdout.write(greeting(root, prefect_port, mlflow_port))
            sys.stdout.flush()
            watch([prefect, mlflow, working], root)


def settings(root: Path, api: str) -> dict[str, str]:
    """The environment of every child: all state under .sirl/, nothing sent anywhere."""
    home = Layout(root).local / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    return project.environment(
        root,
        PREFECT_HOME=str(home),
        PREFECT_API_URL=api,
        PREFECT_API_AUTH_STRING=(password := auth(home / "profiles.toml")),
        PREFECT_SERVER_API_AUTH_STRING=password,
        PREFECT_SERVER_CORS_ALLOWED_ORIGINS=",".join(origins(urlsplit(api).port)),
        PREFECT_SERVER_CSRF_PROTECTION_ENABLED="true",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # seven processes that nothing here uses
    )


def origins(port: int | None) -> list[str]:
    """The pages of a server of ours: whoever opens one by either name."""
    return [f"http://{name}:{port}" for name in NAMES]


def auth(profiles: Path) -> str:
    """User and password of Prefect's API, made up once a machine.

    They lie in a profile of Prefect's, which its commands read and only this user can.
    """
    if not profiles.exists():
        made = f'active = "sirl"\n\n[profiles.sirl]\n{AUTH} = "sirl:{secrets.token_urlsafe(32)}"\n'
        with os.fdopen(os.open(profiles, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made)
    profiles.chmod(0o600)
    return str(tomllib.loads(profiles.read_text(encoding="utf-8"))["profiles"]["sirl"][AUTH])


def require_free(port: int, option: str) -> None:
    """Refuses a port that something listens on.

    Raises:
        ServiceError: Something does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ServiceError(
                f"port {port} is in use", f"Free it, or choose another: {option} PORT"
            ) from None


@contextmanager
def child(
    name: str, command: Sequence[str], root: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, ended with all its children on leaving."""
    log = log_of(root, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=root,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.args = name
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a server's children to end, then its group, and kills what has not after a while.

    A flow run is the worker's child in a session of its own. It must hear of it first: the worker
    kills it outright, before it can end its stage.
    """
    import psutil  # type: ignore[import-untyped]

    deadline = time.monotonic() + STOP_SECONDS
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children()
        for one in children:
            one.terminate()
        psutil.wait_procs(children, timeout=STOP_SECONDS)
    with suppress(ProcessLookupError):  # the group is empty
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


def await_up(url: str, process: subprocess.Popen[bytes], root: Path) -> None:
    """Waits until a server answers.

    Raises:
        ServiceError: It ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        watch_once([process], root)
        if time.monotonic() > deadline:
            raise ServiceError(f"{url} does not answer", f"See {log_of(root, str(process.args))}")
        time.sleep(0.3)


def prepare(environment: Mapping[str, str]) -> None:
    """The work pool, and the limit of one task run at a time on the device, at the server whose
    address and password the environment variables hold."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.sirl_flow import GPU_TAG

    there = {
        setting: environment[setting.name] for setting in (PREFECT_API_URL, PREFECT_API_AUTH_STRING)
    }
    with temporary_settings(there), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="sirl", type="process"), overwrite=True)
        client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=1)


def deploy(root: Path, environment: Mapping[str, str]) -> None:
    """Every deployment of prefect.yaml.

    Raises:
        ServiceError: Prefect refuses one.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=root,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        log = log_of(root, "deploy")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr, encoding="utf-8")
        raise ServiceError("the deployments of prefect.yaml were refused", f"See {log}")


def greeting(root: Path, prefect_port: int, mlflow_port: int) -> str:
    """Where everything is, and what to type."""
    profiles = Layout(root).local / "prefect" / "profiles.toml"
    return (
        f"Prefect  http://{HOST}:{prefect_port}\n"
        f"MLflow   http://{HOST}:{mlflow_port}\n"
        "\nIn another shell, in this folder:\n"
        "    prefect deployment run sirl/full\n"
        "From another folder, or with another port, first:\n"
        f"    export PREFECT_API_URL=http://{HOST}:{prefect_port}/api\n"
        f"    export PREFECT_PROFILES_PATH={profiles}\n"
        f"\nPrefect's page asks for {AUTH}: it is in that file.\n"
        "\nCtrl-C stops everything.\n"
    )


def watch(processes: Sequence[subprocess.Popen[bytes]], root: Path) -> None:
    """Waits for ever, or until one of the servers ends.

    Raises:
        ServiceError: One ended.
    """
    while True:
        watch_once(processes, root)
        time.sleep(1)


def watch_once(processes: Sequence[subprocess.Popen[bytes]], root: Path) -> None:
    """Refuses to go on without one of the servers.

    Raises:
        ServiceError: One ended.
    """
    for process in processes:
        if process.poll() is not None:
            name = str(process.args)
            raise ServiceError(f"{name} ended by itself", f"See {log_of(root, name)}")


def log_of(root: Path, name: str) -> Path:
    """Where a server writes."""
    return Layout(root).local / "logs" / f"{name}.log"


if __name__ == "__main__":
    raise SystemExit(main())

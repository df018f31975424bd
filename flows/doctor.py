"""What this machine has and lacks for `make run`, each lack with its mend."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from flows import plan, shapes
from flows.dvc import broken
from sirl import config
from sirl.capability import sandbox
from sirl.config import Params
from sirl.errors import SirlError
from sirl.layout import Layout
from tasks.tracking import shown

TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What.
        found: What there is.
        mend: How to mend it; empty where all is well.
        needed: Whether `make run` fails without it.
    """

    name: str
    found: str
    mend: str = ""
    needed: bool = True


def examine(project: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Looks at everything, one finding at a time.

    Args:
        project: The project root.
        environment: The environment variables of a run.
    """
    yield python()
    yield from packages(project)
    try:
        params = config.load(Layout(project).params)
    except SirlError as error:
        yield Finding("params.yaml", str(error), "Mend it, or restore it: git checkout params.yaml")
        return
    yield Finding("params.yaml", "valid")
    if not os.access(project, os.W_OK):
        yield Finding("checkout", "cannot be written", "Make it writable, or copy it")
    yield from machine(project, params)
    yield isolation(params)
    yield git(project)
    yield from dvc(project, environment)
    yield tracking(environment["MLFLOW_TRACKING_URI"])
    yield from store(environment, params)
    yield prefect(project, environment)


def python() -> Finding:
    """The running interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    mend = "" if sys.version_info >= (3, 11) else "Use Python 3.11 or newer"
    return Finding("python", found, mend)


def packages(project: Path) -> Iterator[Finding]:
    """Installed packages against the locks, the data packages apart."""
    from packaging.requirements import Requirement

    for lock, what in (("worker.txt", "packages"), ("data.txt", "data packages")):
        path = project / "requirements" / lock
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
        wanted = [Requirement(line) for line in lines if line and not line.startswith("-")]
        wanted = [r for r in wanted if r.marker is None or r.marker.evaluate()]
        amiss = [said for requirement in wanted if (said := _amiss(requirement))]
        mend = f"pip install --no-deps -r requirements/{lock}" if amiss else ""
        found = f"{len(wanted)} as locked" if not amiss else f"{len(amiss)} amiss: {amiss[0]}"
        yield Finding(what, found, mend)


def _amiss(requirement: object) -> str:
    """What is wrong with one installed package, or nothing."""
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    right = requirement.specifier.contains(version.partition("+")[0], prereleases=True)
    return "" if right else f"{requirement.name} is {version}, not {requirement.specifier}"


def machine(project: Path, params: Params) -> Iterator[Finding]:
    """Device, memory and disk against what these settings need."""
    try:
        device = plan.device(params)
        shape = shapes.of(params.base.model)
    except (ImportError, SirlError) as error:
        yield Finding("torch", str(error), "pip install -c requirements/worker.txt torch")
        return
    mend = f"These settings ask for {device.missing}: set runtime.device: auto"
    yield Finding("device", device.name, mend if device.missing else "")
    if shape is None:
        yield Finding("memory", f"{plan.gib(device.memory)}; size of the model unknown")
        return
    need = sum(plan.training_memory(shape, params.train).values())
    found = f"{plan.gib(device.memory)}, training needs at least {plan.gib(need)}"
    mend = "Lower train.micro_batch or train.max_new_tokens, or set train.lora"
    yield Finding("memory", found, mend if need > device.memory else "", needed=False)
    free, want = plan.free_disk(project), plan.disk(shape)
    found = f"{plan.gib(free)} free, a run needs about {plan.gib(want)}"
    yield Finding("disk", found, "Free some disk space" if free < want else "")


def isolation(params: Params) -> Finding:
    """Whether what a model writes can be run in a sandbox, where a benchmark does that."""
    asking = [b.label for b in params.capability.benchmarks if b.runs_answers]
    try:
        sandbox.check()
    except SirlError as error:
        return Finding("sandbox", error.what, error.mend, needed=bool(asking))
    needed_by = f", for {', '.join(asking)}" if asking else ", which no benchmark of these needs"
    return Finding("sandbox", f"programs can be isolated{needed_by}", needed=bool(asking))


def git(project: Path) -> Finding:
    """Whether the checkout is a git repository: worktrees and run identity need one."""
    if shutil.which("git") is None:
        return Finding("git", "missing", "Install git: apt-get install git")
    done = _run(["git", "rev-parse", "--short", "HEAD"], project, os.environ)
    if done.returncode:
        return Finding("git", "no commit here", "git init && git add --all && git commit -m start")
    return Finding("git", f"at {done.stdout.strip()}")


def dvc(project: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Whether DVC is initialised and not blocked, and its remotes; a run needs no remote."""
    if not (project / ".dvc").is_dir():
        yield Finding("dvc", "not initialised here", "dvc init")
        return
    if left := broken(project):
        names = ", ".join(str(file.relative_to(project)) for file in left)
        found = f"a killed dvc left {names} broken"
        yield Finding(
            "dvc", found, "sirl run mends it; before dvc alone: rm " + names, needed=False
        )
    done = _run([sys.executable, "-m", "dvc", "remote", "list"], project, environment)
    if done.returncode:
        yield Finding("dvc", done.stderr.strip().splitlines()[-1], "Mend .dvc/config")
        return
    yield Finding("dvc", "initialised")
    for line in done.stdout.splitlines():
        name, url = line.split()[:2]
        yield remote(name, url, project, environment)


def remote(name: str, url: str, project: Path, environment: Mapping[str, str]) -> Finding:
    """Whether a DVC remote answers. A local one is made by the first `dvc push`."""
    what = f"dvc remote {name}"
    if "://" not in url:
        return Finding(what, shown(url), needed=False)
    done = _run([sys.executable, "-m", "dvc", "ls-url", f"remote://{name}"], project, environment)
    mend = f"Check its address and keys: dvc remote modify {name}" if done.returncode else ""
    return Finding(what, shown(url), mend, needed=False)


def tracking(uri: str) -> Finding:
    """Whether the tracking server answers; a database file is made by the first run."""
    if not uri.startswith("http"):
        return Finding("tracking", shown(uri))
    mend = "Start it, or unset MLFLOW_TRACKING_URI for the project's own database"
    up = answers(f"{shown(uri).rstrip('/')}/health")
    return Finding("tracking", shown(uri), "" if up else mend)


def store(environment: Mapping[str, str], params: Params) -> Iterator[Finding]:
    """Whether the S3 endpoint answers, where one is set."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        if url := environment.get(variable):
            mend = "" if listens(url) else f"Start it, or correct {variable}"
            yield Finding(variable, shown(url), mend, needed=params.promote.publish is not None)


def prefect(project: Path, environment: Mapping[str, str]) -> Finding:
    """Whether a Prefect server answers; `sirl run` needs none."""
    url = environment.get("PREFECT_API_URL")
    toml = project / "prefect.toml"
    if not url and toml.is_file():
        url = tomllib.loads(toml.read_text(encoding="utf-8"))["api"]["url"]
    if not url:
        return Finding("prefect", "no address set", needed=False)
    mend = "" if answers(f"{shown(url).rstrip('/')}/health") else "make serve"
    return Finding("prefect", shown(url), mend, needed=False)


def answers(url: str) -> bool:
    """Whether a GET is answered well."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as reply:
            return bool(reply.status == 200)
    except (HTTPException, OSError, ValueError):
        return False


def listens(url: str) -> bool:
    """Whether anything listens at a URL's host and port."""
    parts = urlsplit(shown(url))
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _run(
    command: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
    )

"""Where MLflow is met: every stage is a run nested under the pipeline's run.

`MLFLOW_TRACKING_URI` names any server or database; without it, SQLite and a folder under .sirl/.
The pipeline's run is found by its key, so stages started by Prefect, by `sirl run` and by a bare
`dvc repro` all find their parent.

A server that cannot be reached as a stage starts ends the stage there: nothing is computed yet. One
that goes later does not, since what a stage computed is in artifacts/ and MLflow keeps a copy: the
stage ends well, and says what the copy lacks.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import posixpath
import re
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from sirl.config import Params
from sirl.errors import ConfigError, ServiceError, SirlError
from sirl.layout import Layout
from sirl.records import digest_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

EXPERIMENT = "sirl"
PIPELINE_TAG = "sirl.pipeline"
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"

SETTINGS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Ours unless the user has others: a failing request is given up within seconds, and said once."""

ANSWER_SECONDS = 5
PAUSE_SECONDS = 60
"""How long nothing is sent to a server that has just failed: training does not wait for it."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Run:
    """The MLflow run of one stage. What cannot be recorded is counted, and said at the end."""

    def __init__(self, client: MlflowClient, run_id: str, address: str) -> None:
        self.client = client
        self.run_id = run_id
        self._address = address
        self._missed = 0
        self._paused_until = 0.0

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics; MLflow's databases hold no value that is not finite, so none is sent."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        rows = [Metric(_name(key), value, now, step or 0) for key, value in finite.items()]
        self._record(lambda: self.client.log_batch(self.run_id, metrics=rows))

    def artifact(self, path: Path) -> None:
        """Logs a file."""
        self._record(lambda: self.client.log_artifact(self.run_id, str(path)))

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        from mlflow.entities import RunTag

        rows = [RunTag(key, value) for key, value in values.items()]
        self._record(lambda: self.client.log_batch(self.run_id, tags=rows))

    def end(self, status: str, parent: str) -> None:
        """Ends the run, and for now its parent: the next stage opens that again."""
        self._paused_until = 0.0
        self._record(lambda: self.client.set_terminated(self.run_id, status))
        self._record(lambda: self.client.set_terminated(parent, status))
        if self._missed:
            log.warning(
                "MLflow at %s lacks %d records of this stage; artifacts/ is complete",
                shown(self._address),
                self._missed,
            )

    def _record(self, send: Callable[[], object]) -> None:
        if time.monotonic() < self._paused_until:
            self._missed += 1
            return
        try:
            require_answer(self._address)
            send()
        except Exception as error:  # of MLflow, its database, its artifact store: all kinds
            self._missed += 1
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log.warning("not recorded: %s", _failure(self._address, error))


@contextmanager
def stage_run(name: str, params: Params, layout: Layout) -> Iterator[Run]:
    """The run of one stage, ended as the stage ends: finished, failed or interrupted.

    Raises:
        ServiceError: The tracking server does not answer or refuses as the stage starts.
    """
    with one_line_errors(layout):
        client = connect(layout)
        parent = _pipeline_run(client, params, layout)
        client.update_run(parent, status="RUNNING")
        tags = {PARENT_TAG: parent, NAME_TAG: name, **provenance(layout)}
        made = client.create_run(_experiment(client, layout), tags=tags)
        run = Run(client, made.info.run_id, uri(layout))
        _log_params(client, run.run_id, _section(params, name.split("@")[0]))
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        run.end(status, parent)


def connect(layout: Layout) -> MlflowClient:
    """A client for the tracking URI in force; the default database is made on first use.

    Raises:
        ServiceError: Nothing answers there.
    """
    require_answer(uri(layout))
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    for chatty in ("alembic", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    layout.local.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri(layout))


def uri(layout: Layout) -> str:
    """The tracking URI in force.

    Raises:
        ConfigError: It is that of the project's own database, and MLflow would take a part of the
            path for something else.
    """
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    file = (layout.local / "mlflow.db").resolve()
    if re.search(r"\?|%[0-9a-fA-F]{2}", str(file)):  # unquoted by SQLAlchemy, not by MLflow
        raise ConfigError(
            f"MLflow cannot keep a database below {layout.root.resolve()}: there is a ? or % in it",
            "Rename the folder, or set MLFLOW_TRACKING_URI",
        )
    return f"sqlite:///{file}"


def shown(address: str) -> str:
    """A URI without the user, password and query it may have. A password that is not escaped may
    hold any character, so the last @ is what ends it; a file has none of these."""
    scheme, mark, rest = address.partition("://")
    if not mark or rest.startswith("/"):
        return address
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _without_secrets(text: str, address: str) -> str:
    """Text without what `shown` leaves out of an address: errors repeat parts of it."""
    rest = address.partition("://")[2]
    if not rest.startswith("/"):
        who, _, where = rest.rpartition("@")
        words = re.split(r"[/:?#&=]", f"{who}/{where.partition('?')[2]}")
        for word in sorted({*words, *map(unquote, words)}, key=len, reverse=True):
            text = text.replace(word, "***") if len(word) > 2 else text
    return text


def require_answer(address: str) -> None:
    """Fails within seconds where nothing answers: MLflow itself retries a database for minutes.

    Raises:
        ServiceError: Nothing answers.
    """
    parts = urlsplit(address)
    try:
        if parts.scheme in ("http", "https"):
            urllib.request.urlopen(shown(address), timeout=ANSWER_SECONDS).close()
        elif port := _database_port(address):
            socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()
    except HTTPError:
        return  # an answer; what it is worth is MLflow's to find out
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # MLflow has certificate settings of its own
            raise _failure(address, reason) from error


def _database_port(address: str) -> int | None:
    """The port of a database server; None where there is none: a file, a socket, a service."""
    parts = urlsplit(address)
    default = PORTS.get(parts.scheme.partition("+")[0])
    return parts.port or default if default and parts.hostname else None


def provenance(layout: Layout) -> dict[str, str]:
    """What a result can be traced back to: git commit, dvc.lock, flow run."""
    tags = {"git.commit": _git("rev-parse", "HEAD", root=layout.root) or "none"}
    tags["git.dirty"] = str(bool(_git("status", "--porcelain", "-uno", root=layout.root))).lower()
    lock = layout.root / "dvc.lock"
    if lock.exists():
        tags["dvc.lock"] = digest_file(lock)
    if flow := os.environ.get("SIRL_FLOW_RUN"):
        tags["prefect.flow_run"] = flow
    return tags


@contextmanager
def one_line_errors(layout: Layout) -> Iterator[None]:
    """Failures of MLflow as one line with a mend. Wraps calls of MLflow and nothing else: they
    raise the kinds of whatever serves them, requests, SQLAlchemy, boto3 or the file system."""
    try:
        yield
    except SirlError:
        raise
    except Exception as error:
        raise _failure(uri(layout), error) from error


def _failure(address: str, error: object) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    said = (str(error).splitlines() or [type(error).__name__])[0]
    said = _without_secrets(said, address)
    mend = "Start it, or unset MLFLOW_TRACKING_URI to use the local database"
    if isinstance(error, ImportError):
        mend = "Name a driver that is installed, as in postgresql+psycopg2://..., or install it"
    return ServiceError(f"MLflow at {shown(address)} failed: {said[:200]}", mend)


def _pipeline_run(client: MlflowClient, params: Params, layout: Layout) -> str:
    """The id of the pipeline's run, found by its key or made."""
    digest = hashlib.sha256(layout.params.read_bytes()).hexdigest()[:12]
    key = os.environ.get("SIRL_PIPELINE_RUN") or digest
    experiment = _experiment(client, layout)
    query = f"tags.`{PIPELINE_TAG}` = '{key}'"
    if found := client.search_runs([experiment], query, max_results=1):
        return str(found[0].info.run_id)
    tags = {PIPELINE_TAG: key, NAME_TAG: f"{params.name} {key[:8]}", **provenance(layout)}
    run_id = str(client.create_run(experiment, tags=tags).info.run_id)
    _log_params(client, run_id, params.model_dump(mode="json"))
    return run_id


def _experiment(client: MlflowClient, layout: Layout) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, _artifact_root(layout)))
    except MlflowException:  # another stage was faster
        if found := client.get_experiment_by_name(EXPERIMENT):
            return str(found.experiment_id)
        raise


def _artifact_root(layout: Layout) -> str | None:
    """Where artifacts lie: a server knows; a database does not, so beside SQLite's file or in
    .sirl/, unless MLFLOW_DEFAULT_ARTIFACT_ROOT (s3://..., say) names a place."""
    scheme, _, file = uri(layout).partition(":///")
    if scheme.startswith(("http", "databricks")):
        return None
    folder = Path(file).parent if scheme == "sqlite" else layout.local
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    return root or (folder / "mlartifacts").resolve().as_uri()


def _section(params: Params, stage: str) -> dict[str, Any]:
    values = params.model_dump(mode="json")
    return {"seed": values["seed"], stage: values[stage]} if stage in values else values


def _log_params(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    rows = [Param(_name(key), _value(value)) for key, value in _flat(values)]
    for start in range(0, len(rows), 100):  # as many as MLflow takes at once
        client.log_batch(run_id, params=rows[start : start + 100])


def _name(key: str) -> str:
    """A key as MLflow takes it: it refuses most characters, what would be another path, and 250
    characters. One that is changed gets a digest, so that two stay two."""
    plain = posixpath.normpath(re.sub(r"[^\w./: -]", "_", key, flags=re.ASCII).strip("/"))
    if plain == key and not plain.startswith(".") and len(plain) <= 200:
        return key
    digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:8]
    return f"{plain.replace('..', '_').lstrip('./')[:200].rstrip()}-{digest}"


def _value(value: Any) -> str:
    """A value as every database takes it."""
    text = str(value).replace("\0", "")[:500]
    return text.encode(errors="replace").decode()


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested plain data; a dot within a key is none of these."""
    named = isinstance(values, Mapping)
    pairs = (
        ((str(k).replace(".", "/"), v) for k, v in values.items()) if named else enumerate(values)
    )
    for key, value in pairs:
        if isinstance(value, Mapping | list):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _git(*arguments: str, root: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""

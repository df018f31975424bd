"""Where MLflow is met: every stage is a run nested under the pipeline's run.

`MLFLOW_TRACKING_URI` names any server or database; without it, SQLite and a folder under .sirl/.
The pipeline's run is found by its key, so stages started by Prefect, by `sirl run` and by a bare
`dvc repro` all find their parent.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sirl.config import Params
from sirl.errors import ServiceError, SirlError
from sirl.layout import Layout
from sirl.records import digest_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "sirl"
PIPELINE_TAG = "sirl.pipeline"
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""A server that is down is said within seconds, unless the user wants more patience."""


class Run:
    """The MLflow run of one stage."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics; values that are not finite are skipped, MLflow's databases cannot hold
        them."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [
            Metric(key, float(value), now, step or 0)
            for key, value in values.items()
            if math.isfinite(value)
        ]
        self.client.log_batch(self.run_id, metrics=rows)

    def artifact(self, path: Path) -> None:
        """Logs a file."""
        self.client.log_artifact(self.run_id, str(path))

    def folder(self, path: Path, name: str) -> None:
        """Logs a folder under a name."""
        self.client.log_artifacts(self.run_id, str(path), name)

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        for key, value in values.items():
            self.client.set_tag(self.run_id, key, value)


@contextmanager
def stage_run(name: str, params: Params, layout: Layout) -> Iterator[Run]:
    """The run of one stage, ended as the stage ends: finished, failed or killed.

    Raises:
        ServiceError: The tracking server does not answer or refuses.
    """
    with one_line_errors(layout):
        client = connect(layout)
        parent = _pipeline_run(client, params, layout)
        tags = {PARENT_TAG: parent, NAME_TAG: name, **provenance(layout)}
        run = Run(client, client.create_run(_experiment(client, layout), tags=tags).info.run_id)
        _log_params(run, _section(params, name.split("@")[0]))
    status = "KILLED"
    try:
        with one_line_errors(layout):
            yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        _end(client, run.run_id, status)


def connect(layout: Layout) -> MlflowClient:
    """A client for the tracking URI in force; the default database is made on first use."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for key, value in PATIENCE.items():
        os.environ.setdefault(key, value)
    from mlflow.tracking import MlflowClient

    layout.local.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri(layout))


def uri(layout: Layout) -> str:
    """The tracking URI in force."""
    default = f"sqlite:///{(layout.local / 'mlflow.db').resolve()}"
    return os.environ.get("MLFLOW_TRACKING_URI") or default


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


def _pipeline_run(client: MlflowClient, params: Params, layout: Layout) -> str:
    """The id of the pipeline's run, found by its key or made."""
    digest = hashlib.sha256(layout.params.read_bytes()).hexdigest()[:12]
    key = os.environ.get("SIRL_PIPELINE_RUN") or digest
    experiment = _experiment(client, layout)
    query = f"tags.`{PIPELINE_TAG}` = '{key}'"
    if found := client.search_runs([experiment], query, max_results=1):
        return str(found[0].info.run_id)
    tags = {PIPELINE_TAG: key, NAME_TAG: f"{params.name} {key[:8]}", **provenance(layout)}
    run = Run(client, client.create_run(experiment, tags=tags).info.run_id)
    _log_params(run, params.model_dump(mode="json"))
    client.set_terminated(run.run_id)
    return run.run_id


def _experiment(client: MlflowClient, layout: Layout) -> str:
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    local = uri(layout).startswith("sqlite:")
    artifacts = (layout.local / "mlartifacts").resolve().as_uri() if local else None
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    except MlflowException:  # another stage was faster
        if found := client.get_experiment_by_name(EXPERIMENT):
            return str(found.experiment_id)
        raise


def _section(params: Params, stage: str) -> dict[str, Any]:
    values = params.model_dump(mode="json")
    return {"seed": values["seed"], stage: values[stage]} if stage in values else values


def _log_params(run: Run, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    rows = [Param(key, str(value)[:500]) for key, value in _flat(values)]
    for start in range(0, len(rows), 100):
        run.client.log_batch(run.run_id, params=rows[start : start + 100])


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested plain data."""
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
    for key, value in pairs:
        if isinstance(value, Mapping | list):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _end(client: MlflowClient, run_id: str, status: str) -> None:
    """Ends a run; a server that has gone must not hide why the stage ended."""
    try:
        client.set_terminated(run_id, status)
    except Exception as error:
        logging.getLogger(__name__).warning("the run could not be ended: %s", error)


@contextmanager
def one_line_errors(layout: Layout) -> Iterator[None]:
    """MLflow's failures as one line; those of the stage itself pass through."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SirlError:
        raise
    except (MlflowException, SQLAlchemyError) as error:
        raise ServiceError(
            f"MLflow at {uri(layout)} failed: {str(error).splitlines()[0][:200]}",
            "Start it, or unset MLFLOW_TRACKING_URI to use the local database",
        ) from error


def _git(*arguments: str, root: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""

"""Register the trained model, promote it if the gate says so, roll it back.

A version of registered model `sirl-<name>` is one checkpoint, known by its digest. Aliases say what
it is: `candidate` the newest trained, `champion` the promoted, `previous` the champion before. The
gate's decision is written to the version when it is registered, so that a later promotion rests on
evidence about this very checkpoint. Everything here may be repeated without effect.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sirl import model_files, records
from sirl.config import Params
from sirl.errors import DataError, SirlError
from sirl.layout import Layout
from tasks import storage, tracking
from tasks.stage import Stage, main

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
ALIASES = (CANDIDATE, CHAMPION, PREVIOUS)
CHECKPOINT = "checkpoint"


def run(stage: Stage) -> None:
    """The pipeline's last step. A failed gate is a result, not an error."""
    require_fresh(stage.layout)
    version = register(stage)
    decision = records.read_json(stage.layout.decision)
    if decision["passed"]:
        log.info("%s", promote(stage.params, stage.layout, version=version))
        return
    failed = [check["explanation"] for check in decision["checks"] if not check["passed"]]
    log.warning("version %s stays a candidate: %s", version, " ".join(failed))


def require_fresh(layout: Layout) -> None:
    """Refuses a decision that was taken on another checkpoint than the one that is here.

    Raises:
        DataError: DVC finds a stage that is not up to date.
    """
    command = [sys.executable, "-m", "dvc", "status", "--quiet", "--with-deps", "report"]
    if subprocess.run(command, cwd=layout.root, capture_output=True).returncode:
        raise DataError(
            "model, gate and report are not of one run, so there is nothing to promote",
            "Bring them up to date: dvc repro (what is amiss: dvc status)",
        )


def register(stage: Stage) -> str:
    """Makes the trained model a version with alias `candidate`. Returns the version.

    Raises:
        DataError: There is no decision of the gate yet.
        ServiceError: The tracking server refuses.
    """
    layout = stage.layout
    decision = records.read_json(layout.decision)
    model_files.require_only(layout.model("trained"))
    digest = records.digest_folder(layout.model("trained"))
    facts = {
        "digest": digest,
        "gate.passed": str(decision["passed"]).lower(),
        "gate.decision": records.digest_file(layout.decision),
        **tracking.provenance(layout),
    }
    with _registry(stage.params, layout) as registry:
        version = registry.version_of(digest) or _create(stage, registry, digest)
        for key, value in facts.items():
            registry.tag(version, key, value)
        registry.point(CANDIDATE, version)
    return version


def promote(params: Params, layout: Layout, *, version: str | None = None) -> str:
    """Moves `champion` to a version that passed its gate; `previous` keeps the old one.

    Args:
        params: Names the registered model and where to publish.
        layout: Where the checkpoint lies.
        version: The version; the candidate if None.

    Returns:
        One line: what is now what.

    Raises:
        SirlError: There is no such version, or its gate did not pass.
    """
    with _registry(params, layout) as registry:
        version = version or registry.aliases().get(CANDIDATE)
        if version is None:
            raise SirlError(f"{registry.name} has no candidate", "Train one first: sirl run")
        tags = registry.tags(version)
        if tags.get("gate.passed") != "true":
            raise SirlError(
                f"version {version} of {registry.name} did not pass its gate",
                "See why: sirl report. Train again; the gate is not widened to pass",
            )
    if params.promote.publish:  # before any alias moves: a champion can always be fetched
        _publish(params.promote.publish, layout, version, tags["digest"])
    with _registry(params, layout) as registry:
        if params.promote.publish:
            registry.tag(version, "published", f"{params.promote.publish}/{tags['digest']}")
        champion = registry.aliases().get(CHAMPION)
        if champion != version:
            if champion is not None:
                registry.point(PREVIOUS, champion)
            registry.point(CHAMPION, version)
        return registry.line()


def rollback(params: Params, layout: Layout) -> str:
    """Swaps `champion` and `previous`. Returns one line: what is now what.

    Raises:
        SirlError: There is nothing to go back to.
    """
    with _registry(params, layout) as registry:
        aliases = registry.aliases()
        if not {CHAMPION, PREVIOUS} <= aliases.keys():
            raise SirlError(
                f"{registry.name} has no previous champion to go back to",
                "There is one from the second promotion on",
            )
        registry.point(CHAMPION, aliases[PREVIOUS])
        registry.point(PREVIOUS, aliases[CHAMPION])
        return registry.line()


def status(params: Params, layout: Layout) -> str:
    """One line: which version has which alias."""
    with _registry(params, layout) as registry:
        return registry.line()


class _Registry:
    """One registered model and its aliases."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    def aliases(self) -> dict[str, str]:
        """Alias -> version."""
        found = self.client.search_registered_models(f"name = '{self.name}'")
        return {k: str(v) for model in found for k, v in model.aliases.items()}

    def point(self, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(self.name, alias, version)

    def tag(self, version: str, key: str, value: str) -> None:
        self.client.set_model_version_tag(self.name, version, key, value)

    def tags(self, version: str) -> dict[str, str]:
        for known in self.client.search_model_versions(f"name = '{self.name}'"):
            if str(known.version) == version:
                return dict(known.tags)
        raise SirlError(f"{self.name} has no version {version}", "Look at them: sirl status")

    def version_of(self, digest: str) -> str | None:
        """The version that is this checkpoint."""
        query = f"name = '{self.name}' and tags.digest = '{digest}'"
        return next((str(v.version) for v in self.client.search_model_versions(query)), None)

    def create(self, run_id: str, digest: str) -> str:
        """A new version: the checkpoint that a run logged."""
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        made = self.client.create_model_version(
            self.name,
            source=f"runs:/{run_id}/{CHECKPOINT}",
            run_id=run_id,
            tags={"digest": digest},
            description=f"checkpoint {digest[:12]}",
        )
        return str(made.version)

    def line(self) -> str:
        """Which version has which alias."""
        aliases = self.aliases()
        where = [f"{alias} {aliases.get(alias, 'none')}" for alias in ALIASES]
        return f"{self.name}: {', '.join(where)}"


@contextmanager
def _registry(params: Params, layout: Layout) -> Iterator[_Registry]:
    """The registered model of these params; MLflow's failures are one line."""
    with tracking.one_line_errors(layout):
        yield _Registry(tracking.connect(layout), f"sirl-{params.name}")


def _create(stage: Stage, registry: _Registry, digest: str) -> str:
    """A new version. MLflow wants its source under a run: the checkpoint is logged to this one,
    by the client itself, since here a copy that fails is a failure."""
    layout, run_id = stage.layout, stage.tracker.run_id
    registry.client.log_artifacts(run_id, str(layout.model("trained")), CHECKPOINT)
    for path in (layout.decision, layout.report):
        registry.client.log_artifact(run_id, str(path))
    return registry.create(run_id, digest)


def _publish(uri: str, layout: Layout, version: str, digest: str) -> None:
    """Publishes the version's checkpoint unless it is there.

    Raises:
        DataError: It is neither there nor here.
    """
    if storage.published(uri, digest):
        return
    folder = layout.model("trained")
    if records.digest_folder(folder) != digest:
        raise DataError(
            f"the checkpoint of version {version} is neither at {uri} nor in {folder}",
            "Bring it back: dvc checkout with the dvc.lock of the version's git.commit",
        )
    storage.publish(folder, uri)


if __name__ == "__main__":
    raise SystemExit(main("promote", run))

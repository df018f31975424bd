"""Register the trained model, promote it if the gate says so, roll it back.

A version of registered model `sirl-<name>` is one checkpoint, known by its digest. Aliases say what
it
is: `candidate` the newest trained, `champion` the promoted, `previous` the champion before. The
gate's decision is written to the version when it is registered, so that a later promotion is on
evidence about this very checkpoint. Everything here may be repeated without effect.
"""

from __future__ import annotations

import logging
from typing import Any

from sirl import records
from sirl.config import Params
from sirl.errors import ServiceError, SirlError
from sirl.layout import Layout
from tasks import storage, tracking
from tasks.stage import Stage, main

log = logging.getLogger(__name__)

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
ALIASES = (CANDIDATE, CHAMPION, PREVIOUS)
CHECKPOINT = "checkpoint"


def run(stage: Stage) -> None:
    """The pipeline's last step. A failed gate is a result, not an error."""
    version = register(stage.params, stage.layout)
    decision = records.read_json(stage.layout.decision)
    if decision["passed"]:
        log.info("%s", promote(stage.params, stage.layout, version=version))
        return
    failed = [check["explanation"] for check in decision["checks"] if not check["passed"]]
    log.warning("version %s stays a candidate: %s", version, " ".join(failed))


def register(params: Params, layout: Layout) -> str:
    """Makes the trained model a version with alias `candidate`. Returns the version.

    Raises:
        DataError: There is no decision of the gate yet.
        ServiceError: The tracking server refuses.
    """
    decision = records.read_json(layout.decision)
    digest = records.digest_folder(layout.model("trained"))
    facts = {
        "digest": digest,
        "gate.passed": str(decision["passed"]).lower(),
        "gate.decision": records.digest_file(layout.decision),
    }
    name = model_name(params)
    registry = _Registry(layout, name)
    version = registry.version_of(digest) or _create(params, layout, registry, digest)
    for key, value in {**facts, **tracking.provenance(layout)}.items():
        registry.client.set_model_version_tag(name, version, key, value)
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
    registry = _Registry(layout, model_name(params))
    version = version or registry.at(CANDIDATE)
    if version is None:
        raise SirlError(f"{registry.name} has no candidate", "Train one first: sirl run")
    tags = registry.tags(version)
    if tags.get("gate.passed") != "true":
        raise SirlError(
            f"version {version} of {registry.name} did not pass its gate",
            "See why: sirl report. Train again; the gate is not widened to pass",
        )
    if params.promote.publish:
        _publish(params.promote.publish, layout, registry, version, tags["digest"])
    champion = registry.at(CHAMPION)
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
    registry = _Registry(layout, model_name(params))
    champion, previous = registry.at(CHAMPION), registry.at(PREVIOUS)
    if champion is None or previous is None:
        raise SirlError(f"{registry.name} has no previous champion to go back to")
    registry.point(CHAMPION, previous)
    registry.point(PREVIOUS, champion)
    return registry.line()


def status(params: Params, layout: Layout) -> str:
    """One line: which version has which alias."""
    return _Registry(layout, model_name(params)).line()


def model_name(params: Params) -> str:
    """The registered model of these params."""
    return f"sirl-{params.name}"


class _Registry:
    """One registered model and its aliases."""

    def __init__(self, layout: Layout, name: str) -> None:
        from mlflow.exceptions import MlflowException

        self.client = tracking.connect(layout)
        self.name = name
        self._missing = MlflowException
        with tracking.one_line_errors(layout):
            if not self.client.search_registered_models(f"name = '{name}'"):
                self.client.create_registered_model(name)

    def at(self, alias: str) -> str | None:
        """The version an alias points to."""
        model = self.client.get_registered_model(self.name)
        found = model.aliases.get(alias)
        return None if found is None else str(found)

    def point(self, alias: str, version: str) -> None:
        self.client.set_registered_model_alias(self.name, alias, version)

    def tags(self, version: str) -> dict[str, str]:
        try:
            return dict(self.client.get_model_version(self.name, version).tags)
        except self._missing:
            raise SirlError(
                f"{self.name} has no version {version}", "List them: sirl status"
            ) from None

    def version_of(self, digest: str) -> str | None:
        """The version that is this checkpoint."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return next((str(v.version) for v in found if v.tags.get("digest") == digest), None)

    def line(self) -> str:
        where = [f"{alias} {self.at(alias) or 'none'}" for alias in ALIASES]
        return f"{self.name}: {', '.join(where)}"


def _create(params: Params, layout: Layout, registry: _Registry, digest: str) -> str:
    """A new version. MLflow wants its source under a run, so the checkpoint is logged to one."""
    with tracking.stage_run("promote", params, layout) as run:
        run.folder(layout.model("trained"), CHECKPOINT)
        for path in (layout.decision, layout.report):
            run.artifact(path)
        made: Any = registry.client.create_model_version(
            registry.name,
            source=f"runs:/{run.run_id}/{CHECKPOINT}",
            run_id=run.run_id,
            tags={"digest": digest},
            description=f"SIRL on {params.name}, checkpoint {digest[:12]}",
        )
    return str(made.version)


def _publish(uri: str, layout: Layout, registry: _Registry, version: str, digest: str) -> None:
    """Publishes the version's checkpoint before any alias moves."""
    folder = layout.model("trained")
    if not folder.is_dir() or records.digest_folder(folder) != digest:
        raise ServiceError(
            f"the checkpoint of version {version} is not at {folder}, so it cannot be published",
            "Bring it back (dvc checkout of its dvc.lock), or set promote.publish to null",
        )
    storage.publish(folder, uri)
    registry.client.set_model_version_tag(registry.name, version, "published", f"{uri}/{digest}")


if __name__ == "__main__":
    raise SystemExit(main("promote", run))

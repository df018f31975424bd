"""Register the trained model, promote it if the gate says so, roll it back.

A version of registered model `sirl-<name>` is one checkpoint, known by its digest. Aliases say what
it is: `candidate` the newest trained, `champion` the promoted, `previous` the champion before. The
gate's decision is written to the version when it is registered, so that a later promotion rests on
evidence about this very checkpoint. Everything here may be repeated without effect.

MLflow moves one alias at a time and locks nothing. So who becomes champion is first written down as
one tag of the registered model, and never changed; the aliases `champion` and `previous` are only
what follows from all those tags together (`_Registry.settle`). Whoever is killed in between, and
whoever comes at the same time from any machine, leaves tags from which the next one makes the same
aliases.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sirl import model_files, records
from sirl.config import Params
from sirl.errors import DataError, ServiceError, SirlError
from sirl.layout import Layout
from tasks import gate, inputs, storage, tracking
from tasks.stage import Stage, main

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
ALIASES = (CANDIDATE, CHAMPION, PREVIOUS)
CHECKPOINT = "checkpoint"
CROWNED = "champion."
"""How the tags begin that say who became champion: `champion.<number>.<of whom>`."""


def run(stage: Stage) -> None:
    """The pipeline's last step. A failed gate is a result, not an error."""
    decision = require_evidence(stage)
    version = register(stage, decision)
    if decision["passed"]:
        log.info("%s", promote(stage.params, stage.layout, version=version))
        return
    failed = [check["explanation"] for check in decision["checks"] if not check["passed"]]
    log.warning("version %s stays a candidate: %s", version, " ".join(failed))


def require_evidence(stage: Stage) -> dict[str, Any]:
    """The gate's decision, once it is sure that it follows from the artifacts that lie there.

    Raises:
        DataError: It does not, or DVC finds a stage that is not up to date.
    """
    layout = stage.layout
    require_fresh(stage.params, layout)
    decision: dict[str, Any] = gate.conclude(layout, stage.params.gate)
    if records.read_json(layout.decision) != decision:
        raise DataError(
            f"{layout.decision} is not what the gate decides on these artifacts",
            "Decide again: dvc repro --single-item --force gate, then dvc repro",
        )
    return decision


def require_fresh(params: Params, layout: Layout) -> None:
    """Refuses artifacts that are not those of one run of the graph, every byte read.

    Raises:
        DataError: DVC finds a stage that is not up to date, or an input is not there any more.
    """
    inputs.write(params, layout, every_byte=True)
    command = [
        sys.executable,
        "-m",
        "dvc",
        "--wait-for-lock",
        "status",
        "--json",
        "--with-deps",
        "report",
    ]
    with TemporaryDirectory() as empty:  # where DVC remembers digests by size and time of a file
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": empty}
        done = subprocess.run(command, cwd=layout.root, env=environment, capture_output=True)
    if done.returncode or json.loads(done.stdout).keys() - {inputs.STAGE}:
        raise DataError(
            "model, gate and report are not of one run, so there is nothing to promote",
            "Bring them up to date: dvc repro (what is amiss: dvc status)",
        )


def register(stage: Stage, decision: Mapping[str, Any] | None = None) -> str:
    """Makes the trained model a version with alias `candidate`. Returns the version.

    Args:
        stage: The running stage.
        decision: The gate's; what is written down if None.

    Raises:
        DataError: There is no decision of the gate yet, or it was taken on other weights.
        ServiceError: The tracking server refuses, or holds other bytes than were sent.
    """
    layout = stage.layout
    decision = decision or records.read_json(layout.decision)
    model_files.require_only(layout.model("trained"))
    digest = model_files.digest(layout.model("trained"))
    if decision.get("models", {}).get("trained", digest) != digest:
        raise DataError(
            f"{layout.model('trained')} is not the model that the gate decided on",
            "Bring both up to date: dvc repro (what is amiss: dvc status)",
        )
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
        SirlError: There is no such version, its gate did not pass, or its copy is not what was
            judged.
    """
    with _registry(params, layout) as registry:
        version = version or registry.aliases().get(CANDIDATE)
        if version is None:
            raise SirlError(f"{registry.name} has no candidate", "Train one first: sirl run")
        digest = registry.require_passed(version)
    uri = params.promote.publish
    if uri:  # before any alias moves: a champion can always be fetched
        _publish(uri, layout, version, digest)
    with _registry(params, layout) as registry:
        if uri:
            registry.tag(version, "published", f"{uri}/{digest}")
        reigns = registry.reigns()
        if not reigns or reigns[-1].version != version:
            registry.require_intact(version)
            registry.require_passed(version)  # publishing takes its time
            registry.crown(Reign(version, digest))
        registry.settle()
        return registry.line()


def rollback(params: Params, layout: Layout) -> str:
    """Makes the champion before champion again. Returns one line: what is now what.

    Done twice it is done once, whoever does it: the way forward is to promote by version.

    Raises:
        SirlError: There is nothing to go back to, or its copy is not what was judged.
    """
    with _registry(params, layout) as registry:
        reigns = registry.reigns()
        if not reigns or not reigns[-1].rolled_back:
            before = previous(reigns)
            if before is None:
                raise SirlError(
                    f"{registry.name} has no previous champion to go back to",
                    "There is one from the second promotion on",
                )
            registry.require_intact(before.version)
            registry.crown(replace(before, rolled_back=True))
        registry.settle()
        return registry.line()


def status(params: Params, layout: Layout) -> str:
    """One line: which version has which alias."""
    with _registry(params, layout) as registry:
        return registry.line()


@dataclass(frozen=True)
class Reign:
    """One time that a version became champion."""

    version: str
    digest: str
    rolled_back: bool = False


def previous(reigns: Sequence[Reign]) -> Reign | None:
    """The champion before the last: that is one of other weights."""
    others = [reign for reign in reigns if reign.digest != reigns[-1].digest]
    return others[-1] if others else None


class _Registry:
    """One registered model, its versions, champions and aliases."""

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

    def versions(self) -> dict[str, ModelVersion]:
        """Every version, oldest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return {str(v.version): v for v in sorted(found, key=lambda v: int(v.version))}

    def version(self, version: str) -> ModelVersion:
        if known := self.versions().get(version):
            return known
        raise SirlError(f"{self.name} has no version {version}", "Look at them: sirl status")

    def version_of(self, digest: str) -> str | None:
        """The version that is this checkpoint, the oldest if there are several."""
        same = (v for v, known in self.versions().items() if known.tags.get("digest") == digest)
        return next(same, None)

    def require_passed(self, version: str) -> str:
        """The digest of a version whose gate passed.

        Raises:
            SirlError: It did not, or there is no such version.
        """
        tags = self.version(version).tags
        if tags.get("gate.passed") == "true" and "digest" in tags:
            return str(tags["digest"])
        raise SirlError(
            f"version {version} of {self.name} did not pass its gate",
            "See why: sirl report. Train again; the gate is not widened to pass",
        )

    def require_intact(self, version: str) -> None:
        """Reads the copy of a version back.

        Raises:
            DataError: It is not the checkpoint of the version's digest.
        """
        known = self.version(version)
        if self.stored(known.run_id or "") != known.tags.get("digest"):
            raise DataError(
                f"the copy of version {version} of {self.name} is not what was judged",
                "Delete the version in MLflow and register the checkpoint anew: sirl run",
            )

    def stored(self, run_id: str) -> str:
        """Digest of the checkpoint that a run logged, of the bytes that the store gives back."""
        found, folders = {}, [CHECKPOINT]
        with TemporaryDirectory() as scratch:
            while folders:
                for file in self.client.list_artifacts(run_id, folders.pop()):
                    if file.is_dir:
                        folders.append(file.path)
                        continue
                    path = Path(self.client.download_artifacts(run_id, file.path, scratch))
                    found[file.path.removeprefix(f"{CHECKPOINT}/")] = records.digest_file(path)
                    path.unlink()
        return records.digest_of(found)

    def reigns(self) -> list[Reign]:
        """Every time that a version became champion, in order; versions since deleted left out."""
        known = self.versions()
        said = (value.split() for _, value in self._crownings())
        reigns = [Reign(version, digest, bool(rest)) for version, digest, *rest in said]
        return [reign for reign in reigns if reign.version in known]

    def crown(self, reign: Reign) -> None:
        """Writes down who becomes champion. Of two at once both stand, in an order that all see."""
        number = max((int(key.split(".")[1]) for key, _ in self._crownings()), default=0) + 1
        words = [reign.version, reign.digest, *(["rollback"] if reign.rolled_back else [])]
        key = f"{CROWNED}{number:06}.{uuid.uuid4().hex[:8]}"
        self.client.set_registered_model_tag(self.name, key, " ".join(words))

    def settle(self) -> None:
        """Brings the aliases to what is written down, until nobody has written more meanwhile."""
        seen: list[Reign] = []
        while (reigns := self.reigns()) != seen:
            before, aliases, seen = previous(reigns), self.aliases(), reigns
            wanted = {CHAMPION: reigns[-1].version}
            if before:
                wanted[PREVIOUS] = before.version
            for alias, version in wanted.items():
                if aliases.get(alias) != version:
                    self.point(alias, version)

    def _crownings(self) -> list[tuple[str, str]]:
        found = self.client.search_registered_models(f"name = '{self.name}'")
        tags = {key: value for model in found for key, value in model.tags.items()}
        return sorted((key, value) for key, value in tags.items() if key.startswith(CROWNED))

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
    if registry.stored(run_id) != digest:
        raise ServiceError(
            f"MLflow's copy of {layout.model('trained')} is not what the gate decided on",
            "It changed meanwhile, or the store is broken: dvc status, then sirl run again",
        )
    for path in (layout.decision, layout.report):
        registry.client.log_artifact(run_id, str(path))
    made = registry.create(run_id, digest)
    first = registry.version_of(digest) or made
    if first != made:  # another registered the same checkpoint meanwhile
        registry.client.delete_model_version(registry.name, made)
    return first


def _publish(uri: str, layout: Layout, version: str, digest: str) -> None:
    """Publishes the version's checkpoint unless it is there.

    Raises:
        DataError: It is neither there nor here, or there in other bytes.
    """
    if storage.published(uri, digest):
        storage.verify(uri, digest)
        return
    folder = layout.model("trained")
    if model_files.digest(folder) != digest:
        raise DataError(
            f"the checkpoint of version {version} is neither at {uri} nor in {folder}",
            "Bring it back: dvc checkout with the dvc.lock of the version's git.commit",
        )
    storage.publish(folder, uri)


if __name__ == "__main__":
    raise SystemExit(main("promote", run))

"""Stage gate: may the trained model be promoted? The decision, with each check in a sentence."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from sirl import gate, lineage, records
from sirl.config import GateParams
from sirl.errors import DataError
from sirl.layout import ROLES, Layout, ModelRole
from sirl.records import CapabilityItem, Verdict
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Reads what was measured on both models and writes the decision."""
    layout = stage.layout
    decision = conclude(layout, stage.params.gate)
    for check in decision["checks"]:
        word = "pass" if check["passed"] else "FAIL"
        log.info("%s %s: %s", word, check["name"], check["explanation"])
    log.info("gate: %s", "passed" if decision["passed"] else "not passed")
    records.write_json(layout.decision, decision)
    stage.tracker.metrics({f"gate/{c['name']}": float(c["passed"]) for c in decision["checks"]})
    stage.tracker.metrics({"gate/passed": float(decision["passed"])})
    stage.tracker.artifact(layout.decision)


def conclude(layout: Layout, params: GateParams) -> dict[str, Any]:
    """The decision that follows from what lies there: what it rests on is part of it.

    Raises:
        DataError: The artifacts are of different runs, models or judges.
    """
    models = {role: _model(layout, role) for role in ROLES}
    judges = [records.read_json(layout.judged(role))["judge"] for role in ROLES]
    if len(set(judges)) > 1:
        raise DataError(
            f"base and trained are artifacts of different runs: judged by {' and '.join(judges)}",
            "Bring both up to date: dvc repro",
        )
    base, trained = (_evidence(layout, role, judges[0]) for role in ROLES)
    decision = gate.decide(base, trained, params)
    read = [f(role) for f in (layout.verdicts, layout.capability_items) for role in ROLES]
    rests_on = {"models": models, "inputs": lineage.stamp(layout.root, read)}
    return {**_rounded(dataclasses.asdict(decision)), **rests_on}


def _model(layout: Layout, role: ModelRole) -> str:
    """The digest of the model of this role, about which all that was measured must be."""
    judged = records.read_json(layout.judged(role))
    lineage.check(layout.root, layout.judged(role), judged["inputs"])
    made = records.read_json(layout.train_summary)
    measured = {path: records.read_json(path) for path in _measured(layout, role)}
    return lineage.one_model(
        {
            layout.train_summary: made.get("models", {}).get(role),
            layout.judged(role): judged["target"]["model"],
            **{path: found.get("model") for path, found in measured.items()},
        }
    )


def _measured(layout: Layout, role: ModelRole) -> list[Path]:
    return [f(role) for f in (layout.attacked, layout.profile, layout.capability)]


def _evidence(layout: Layout, role: ModelRole, judge: str) -> gate.Evidence:
    """The deciding judge's verdicts and the scored items of one model."""
    verdicts = records.read(layout.verdicts(role), Verdict)
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for item in records.read(layout.capability_items(role), CapabilityItem):
        scores[item.benchmark][item.id] = item.score
    outcomes = {v.transcript_id: v.outcome for v in verdicts if v.judge == judge}
    return gate.Evidence(outcomes, scores)


def _rounded(value: Any) -> Any:
    """Plain data with its floats at six digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    raise SystemExit(main("gate", run))

"""Stage profile: the entropy profile of a model's own responses to harmful and benign requests."""

from __future__ import annotations

import logging
from dataclasses import asdict
from itertools import islice
from typing import Any

from sirl import profiling, readiness, records
from sirl.generation import BackendSpec, TransformersBackend
from sirl.layout import Split
from sirl.models import resolve_device
from sirl.progress import bar
from sirl.records import ProfiledResponse, Prompt
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Samples, writes the responses as they come, then their summary."""
    params, layout, role = stage.params.profile, stage.layout, stage.role
    asked = profiling.plan(
        _first(stage, "behaviours", params.harmful),
        _first(stage, "benign", params.benign),
        stage.params.attack.attacks,
        params.attacked,
    )
    device = resolve_device(stage.params.runtime.device)
    backend: BackendSpec = stage.params.backend
    if "entropy" not in backend.provides:
        log.info("profile@%s: backend %s tells no entropy; transformers does", role, backend.name)
        backend = TransformersBackend()
    generator: Any = backend.open(layout.model(role), device)
    responses = profiling.respond(
        asked,
        generator,
        params.sampling,
        samples=params.samples,
        seed=stage.params.seed,
        decode=generator.tokenizer.decode,
    )
    total = sum(len(group.prompts) for group in asked) * params.samples
    records.write(layout.responses(role), bar(responses, "profiling", total))
    summary = profiling.summarise(records.read(layout.responses(role), ProfiledResponse))
    ready = readiness.assess(summary, params.samples)
    records.write_json(layout.profile(role), {**summary, "readiness": asdict(ready)})
    log.info("profile@%s: %s: %s", role, ready.verdict, "; ".join(ready.reasons))
    together = summary["together"]
    numbers = ("gap_nats", "auroc", "cohens_d")
    stage.tracker.metrics({k: together[k] for k in numbers if together[k] is not None})
    stage.tracker.artifact(layout.profile(role))


def _first(stage: Stage, split: Split, count: int) -> list[Prompt]:
    return list(islice(records.read(stage.layout.prompts(split), Prompt), count))


if __name__ == "__main__":
    raise SystemExit(main("profile", run, per_model=True))

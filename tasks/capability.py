"""Stage capability: what a model can still do, on every benchmark.

Items of a finished benchmark are kept in a state folder, keyed by everything that decides what they
are; a killed run goes on with the next benchmark.
"""

from __future__ import annotations

import logging
import shutil
from functools import cache
from pathlib import Path

from sirl import capability, generation, packaged, records
from sirl.capability import summary
from sirl.generation import Generator
from sirl.models import resolve_device
from sirl.progress import bar
from sirl.records import CapabilityItem
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Runs what is left of the benchmarks, then writes all items and the score of each."""
    benchmarks, layout, role = stage.params.capability.benchmarks, stage.layout, stage.role
    summary.check_labels(benchmarks)
    device = resolve_device(stage.params.runtime.device)
    state = layout.state(f"capability-{role}", _key(stage, device))

    @cache
    def generator() -> Generator:
        return stage.params.backend.open(layout.model(role), device)

    items: list[CapabilityItem] = []
    for number, benchmark in enumerate(bar(benchmarks, "benchmarks", len(benchmarks))):
        rows = state / f"{number}.jsonl"
        if not rows.exists():
            records.write(rows, benchmark.run(generator()))
            log.info("capability@%s: %s done", role, benchmark.label)
        items += records.read(rows, CapabilityItem)
    records.write(layout.capability_items(role), sorted(items, key=lambda item: item.id))
    scores = summary.summarise(benchmarks, items)
    records.write_json(layout.capability(role), scores)
    shutil.rmtree(state)
    stage.tracker.metrics({k: v["score"] for k, v in scores["benchmarks"].items()})


def _key(stage: Stage, device: str) -> str:
    """Digest of what decides the items, the code that writes them included."""
    params = stage.params
    folders = [Path(package.__path__[0]) for package in (capability, generation)]
    inputs = {
        "capability": params.capability.model_dump(mode="json"),
        "backend": params.backend.model_dump(mode="json", exclude=set(params.backend.place)),
        "device": device,
        "model": records.digest_folder(stage.layout.model(stage.role)),
        "code": [records.digest_file(f) for d in folders for f in sorted(d.glob("*.py"))],
        "data": records.digest_file(Path(packaged.__file__)),
    }
    return records.digest_json(inputs)[:16]


if __name__ == "__main__":
    raise SystemExit(main("capability", run, per_model=True))

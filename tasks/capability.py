"""Stage capability: what a model can still do, on every benchmark.

Items of a finished benchmark are kept under a digest of everything that decides what they are; a
killed run goes on with the next benchmark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from sirl import capability, generation, model_files, packaged, records
from sirl.capability import BenchmarkSpec, summary
from sirl.config import Params
from sirl.layout import Layout, ModelRole
from sirl.progress import bar
from sirl.records import CapabilityItem
from sirl.store import Store
from tasks import inputs, models, resume
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Runs what is left of the benchmarks, then writes all items and the score of each."""
    params, layout, role = stage.params, stage.layout, stage.role
    benchmarks = params.capability.benchmarks
    summary.check_labels(benchmarks)
    device = params.execution.device(params.runtime.device)
    digest = model_files.digest(layout.model(role))
    context = _context(stage, device, digest)
    store = Store(resume.begin(layout, f"capability@{role}", context), CapabilityItem)
    addresses = {b.label: records.digest_json([context, b.model_dump()])[:32] for b in benchmarks}
    with store.locked():
        left = [benchmark for benchmark in benchmarks if addresses[benchmark.label] not in store]
        work = _Work(params, layout.root.resolve(), role, device, digest)
        running = params.execution.map(work, left)
        for benchmark, found in bar(running, "benchmarks", total=len(left)):
            store.put(addresses[benchmark.label], found)
            log.info("capability@%s: %s done", role, benchmark.label)
        items = sorted(store.rows(addresses.values()), key=lambda item: item.id)
        records.write(layout.capability_items(role), items)
        resume.finish(store.folder)
    scores = summary.summarise(benchmarks, items)
    records.write_json(layout.capability(role), {**scores, "model": digest})
    stage.tracker.metrics({k: v["score"] for k, v in scores["benchmarks"].items()})


@dataclass(frozen=True)
class _Work:
    """Puts a model to benchmarks, wherever it is opened."""

    params: Params
    root: Path
    role: ModelRole
    device: str
    digest: str

    def open(self) -> Callable[[BenchmarkSpec], list[CapabilityItem]]:
        """Loads the model.

        Raises:
            ModelError: The model in the folder is not the one that the run began with.
        """
        layout = Layout(self.root)
        with chdir(self.root):
            target = models.target(self.params, layout, self.role, self.device, self.digest)

        def run(benchmark: BenchmarkSpec) -> list[CapabilityItem]:
            with chdir(self.root):
                return list(benchmark.run(target))

        return run


def _context(stage: Stage, device: str, digest: str) -> str:
    """Digest of what decides all items, the code that writes them included."""
    backend = stage.params.backend
    folders = [Path(package.__path__[0]) for package in (capability, generation)]
    parts = {
        "backend": backend.model_dump(mode="json", exclude=set(backend.place)),
        "device": device,
        "model": digest,
        "code": [records.digest_file(f) for d in folders for f in sorted(d.glob("*.py"))],
        "tasks": inputs.read(stage.params.capability, stage.layout),
        "data": records.digest_file(Path(packaged.__file__)),
    }
    return records.digest_json(parts)[:16]


if __name__ == "__main__":
    raise SystemExit(main("capability", run, per_model=True))

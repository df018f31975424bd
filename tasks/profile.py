"""Stage profile: the entropy profile of a model's own responses to harmful and benign requests.

Finished parts are kept under a digest of everything that decides them; a killed run goes on from
there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import chdir
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sirl import attacks, entropy, generation, model_files, profiling, readiness, records
from sirl.config import Params
from sirl.generation import TransformersBackend
from sirl.judges import refusal
from sirl.layout import Layout, ModelRole, Split
from sirl.profiling import Asked
from sirl.progress import bar
from sirl.records import ProfiledResponse, Prompt
from sirl.store import Store
from tasks import models, resume
from tasks.stage import Stage, main

log = logging.getLogger(__name__)

Part = tuple[Asked, ...]


def run(stage: Stage) -> None:
    """Samples what is left of the responses, then writes all of them and their summary."""
    params, layout, role = _entropic(stage), stage.layout, stage.role
    asked = profiling.plan(
        _first(stage, "behaviours", params.profile.harmful),
        _first(stage, "benign", params.profile.benign),
        params.attack.attacks,
        params.profile.attacked,
    )
    device = params.execution.device(params.runtime.device)
    digest = model_files.digest(layout.model(role))
    context = _context(params, device, digest)
    store = Store(resume.begin(layout, f"profile@{role}", context), ProfiledResponse)
    parts = profiling.parts(asked)
    addresses = [profiling.address(part, context) for part in parts]
    with store.locked():
        left = [p for p, address in zip(parts, addresses, strict=True) if address not in store]
        work = _Work(params, layout.root.resolve(), role, device, digest)
        for part, rows in bar(params.execution.map(work, left), "profiling", total=len(left)):
            store.put(profiling.address(part, context), rows)
        records.write(layout.responses(role), store.rows(addresses))
        resume.finish(store.folder)
    _summarise(stage, params.profile.samples, digest)


def _entropic(stage: Stage) -> Params:
    """The parameters, with a backend that tells entropies."""
    backend = stage.params.backend
    if "entropy" in backend.provides:
        return stage.params
    log.info("%s: backend %s tells no entropy; transformers does", stage.name, backend.name)
    return stage.params.model_copy(update={"backend": TransformersBackend()})


@dataclass(frozen=True)
class _Work:
    """Samples the responses of parts, wherever it is opened."""

    params: Params
    root: Path
    role: ModelRole
    device: str
    digest: str

    def open(self) -> Callable[[Part], list[ProfiledResponse]]:
        """Loads the model.

        Raises:
            ModelError: The model in the folder is not the one that the run began with.
        """
        layout = Layout(self.root)
        with chdir(self.root):
            target: Any = models.target(self.params, layout, self.role, self.device, self.digest)

        def run(part: Part) -> list[ProfiledResponse]:
            with chdir(self.root):
                responses = profiling.respond(
                    part,
                    target,
                    self.params.profile.sampling,
                    samples=self.params.profile.samples,
                    seed=self.params.seed,
                    decode=target.tokenizer.decode,
                )
                return sorted(responses, key=lambda row: row.id)

        return run


def _summarise(stage: Stage, samples: int, digest: str) -> None:
    layout, role = stage.layout, stage.role
    summary = profiling.summarise(records.read(layout.responses(role), ProfiledResponse))
    ready = readiness.assess(summary, samples)
    made = {"model": digest, "readiness": asdict(ready)}
    records.write_json(layout.profile(role), summary | made)
    log.info("profile@%s: %s: %s", role, ready.verdict, "; ".join(ready.reasons))
    together = summary["together"]
    numbers = ("gap_nats", "auroc", "cohens_d")
    stage.tracker.metrics({k: together[k] for k in numbers if together[k] is not None})
    stage.tracker.artifact(layout.profile(role))


def _first(stage: Stage, split: Split, count: int) -> list[Prompt]:
    return list(islice(records.read(stage.layout.prompts(split), Prompt), count))


def _context(params: Params, device: str, digest: str) -> str:
    """Digest of what decides all responses, the code that writes them included."""
    folders = [Path(package.__path__[0]) for package in (attacks, generation)]
    code = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    code += [Path(module.__file__ or "") for module in (entropy, profiling, refusal)]
    inputs = {
        "sampling": params.profile.sampling.model_dump(mode="json"),
        "samples": params.profile.samples,
        "backend": params.backend.model_dump(mode="json", exclude=set(params.backend.place)),
        "seed": params.seed,
        "device": device,
        "model": digest,
        "code": [records.digest_file(file) for file in code],
    }
    return records.digest_json(inputs)[:16]


if __name__ == "__main__":
    raise SystemExit(main("profile", run, per_model=True))

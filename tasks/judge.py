"""Stage judge: every judge's verdict on every transcript, and the rates of the first judge.

Finished parts are kept under a digest of everything that decides them; a killed run goes on from
there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sirl import evaluation, generation, judges, judging, lineage, model_files, records
from sirl.config import JudgeParams, Params
from sirl.judges import JudgeSpec
from sirl.judges.base import Judging
from sirl.judging import Part
from sirl.layout import Layout, ModelRole
from sirl.models import chat_template_digest
from sirl.progress import bar
from sirl.records import Transcript, Verdict
from sirl.store import Store
from tasks import inputs, models, resume
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Writes the verdicts in the order of their ids, then the summary."""
    params, layout, role = stage.params, stage.layout, stage.role
    chosen = params.judge.judges
    evaluation.distinct("judge.judges", [judge.name for judge in chosen])
    path = layout.transcripts(role)
    answered = {layout.attacked(role): records.read_json(layout.attacked(role))["model"]}
    answered[layout.model(role)] = model_files.digest(layout.model(role))
    target = lineage.one_model(answered)
    verdicts = sorted(_verdicts(stage, path), key=lambda verdict: verdict.id)
    records.write(layout.verdicts(role), verdicts)
    summary = evaluation.summarise(
        records.read(path, Transcript),
        verdicts,
        judge=chosen[0].name,
        sampling=params.attack.sampling,
    )
    summary |= {
        "judges": [_named(judge, layout) for judge in chosen],
        "agreement": judging.agreement(verdicts, [judge.name for judge in chosen]),
        "target": {
            "model": target,
            "chat_template": chat_template_digest(layout.model(role)),
        },
        "inputs": lineage.stamp(layout.root, [path, layout.verdicts(role)]),
    }
    records.write_json(layout.judged(role), summary)
    _report(stage, summary)


def _verdicts(stage: Stage, path: Path) -> list[Verdict]:
    """Judges the parts that are not judged yet; returns the verdicts of all."""
    params, layout, role = stage.params, stage.layout, stage.role
    next(records.read(path, Transcript), None)  # a missing file is said as one
    parts = judging.plan(path, params.judge.judges)
    device = params.execution.device(params.runtime.device)
    context = _context(params.judge, layout, path, device)
    store = Store(resume.begin(layout, f"judge@{role}", context), Verdict)
    addresses = [part.address(context) for part in parts]
    with store.locked():
        left = [p for p, address in zip(parts, addresses, strict=True) if address not in store]
        work = _Work(params, layout.root.resolve(), role, device)
        running = params.execution.map(work, left)
        for part, verdicts in bar(running, f"judge {role}", total=len(left)):
            store.put(part.address(context), verdicts)
        found = list(store.rows(addresses))
        resume.finish(store.folder)
    return found


@dataclass(frozen=True)
class _Work:
    """Judges parts, wherever it is opened."""

    params: Params
    root: Path
    role: ModelRole
    device: str

    def open(self) -> Callable[[Part], list[Verdict]]:
        """Opens a judge's model with the first part for it; one is open at a time."""
        layout = Layout(self.root)
        opened: dict[str, Judging] = {}

        def run(part: Part) -> list[Verdict]:
            with chdir(self.root):
                if part.judge.name not in opened:
                    opened.clear()
                    opened[part.judge.name] = models.judge(part.judge, layout, self.device)
                transcripts = judging.read(layout.transcripts(self.role), part)
                verdicts = opened[part.judge.name](transcripts)
                return sorted(verdicts, key=lambda verdict: verdict.id)

        return run


def _context(params: JudgeParams, layout: Layout, path: Path, device: str) -> str:
    """Digest of what decides all verdicts: what is judged, and the code that judges."""
    packages = [Path(package.__path__[0]) for package in (generation, judges)]
    code = [file for package in packages for file in sorted(package.glob("*"))]
    parts = {
        "models": inputs.read(params, layout),
        "transcripts": records.digest_file(path),
        "device": device,
        "code": [records.digest_file(file) for file in code if file.is_file()],
    }
    return records.digest_json(parts)[:16]


def _named(judge: JudgeSpec, layout: Layout) -> dict[str, Any]:
    """What a reader must know of a judge to judge its figures."""
    asked = judge.asks
    return {
        **judge.model_dump(mode="json"),
        "template": getattr(judge, "template", None),
        **models.digests(asked, layout),
        "temperature": None if asked is None else 0.0,
    }


def _report(stage: Stage, summary: dict[str, Any]) -> None:
    rates = {
        "dsr/direct": summary["direct"]["rate"],
        "dsr/attacked": summary["attacked"]["mean"],
        "over_refusal": summary["benign"]["rate"],
        **{f"dsr/{name}": group["rate"] for name, group in summary["attacks"].items()},
        **{"kappa/" + "-".join(row["judges"]): row["kappa"] for row in summary["agreement"]},
    }
    known = {name: rate for name, rate in rates.items() if rate is not None}
    log.info("judge@%s: %s", stage.role, ", ".join(f"{k} {v:.3f}" for k, v in known.items()))
    stage.tracker.metrics(known)
    stage.tracker.artifact(stage.layout.judged(stage.role))


if __name__ == "__main__":
    raise SystemExit(main("judge", run, per_model=True))

"""Stage judge: every judge's verdict on every transcript, and the rates of the first judge."""

from __future__ import annotations

import logging

from sirl import evaluation, records
from sirl.progress import bar
from sirl.records import Transcript, Verdict
from tasks.stage import Stage, main

log = logging.getLogger(__name__)


def run(stage: Stage) -> None:
    """Writes the verdicts in the order of their ids, then the summary."""
    layout, role, judges = stage.layout, stage.role, stage.params.judge.judges
    evaluation.distinct("judge.judges", [judge.name for judge in judges])
    path = layout.transcripts(role)
    verdicts: list[Verdict] = []
    for judge in judges:
        verdicts += bar(judge.judge(records.read(path, Transcript)), f"judge {judge.name}")
    records.write(layout.verdicts(role), sorted(verdicts, key=lambda verdict: verdict.id))
    summary = evaluation.summarise(
        records.read(path, Transcript),
        verdicts,
        judge=judges[0].name,
        sampling=stage.params.attack.sampling,
    )
    records.write_json(layout.judged(role), summary)
    rates = {
        "dsr/direct": summary["direct"]["rate"],
        "dsr/attacked": summary["attacked"]["mean"],
        "over_refusal": summary["benign"]["rate"],
        **{f"dsr/{name}": group["rate"] for name, group in summary["attacks"].items()},
    }
    known = {name: rate for name, rate in rates.items() if rate is not None}
    log.info("judge@%s: %s", role, ", ".join(f"{k} {v:.3f}" for k, v in known.items()))
    stage.tracker.metrics(known)
    stage.tracker.artifact(layout.judged(role))


if __name__ == "__main__":
    raise SystemExit(main("judge", run, per_model=True))

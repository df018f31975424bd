"""When a run registers its result: once for each outcome, so a run that changed nothing is quick
and a rollback stays rolled back."""

from __future__ import annotations

from pathlib import Path

from flows import pipeline
from flows.pipeline import Event, Report
from flows.workplace import Workplace
from sirl import records

SPEAKER = " __main__ "
"""What a log line of the task, run as a program, holds between time and message."""


def due(place: Workplace) -> bool:
    """Whether this outcome has not been registered yet with this tracking server."""
    mark = _mark(place)
    return not mark.exists() or mark.read_text(encoding="utf-8") != _outcome(place)


def promote(place: Workplace, report: Report) -> list[str]:
    """Registers the trained model; promotes it where the gate allows. Returns what it said.

    Raises:
        SirlError: The tracking server or the store refuses.
    """
    said: list[str] = []

    def listen(event: Event) -> None:
        if SPEAKER in event.text:
            said.append(event.text.partition(SPEAKER)[2])
        report(event)

    pipeline.module(place, "promote", listen)
    records.write_bytes(_mark(place), [_outcome(place).encode()])
    return said


def _outcome(place: Workplace) -> str:
    """Hash of all outs (dvc.lock) and of where and how they are registered."""
    lock = place.root / "dvc.lock"
    return records.digest_json(
        {
            "lock": records.digest_file(lock) if lock.exists() else None,
            "tracking": place.environment["MLFLOW_TRACKING_URI"],
            "name": place.params.name,
            "promote": place.params.promote.model_dump(mode="json"),
        }
    )


def _mark(place: Workplace) -> Path:
    return place.layout.local / "promoted"

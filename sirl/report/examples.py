"""Which transcripts the report shows, before beside after: picked by rule, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sirl.records import Outcome, Transcript
from sirl.report.data import ModelData


@dataclass(frozen=True)
class Change:
    """A kind of change between the two models that is worth a look, and how many to show."""

    title: str
    kind: str
    before: Outcome
    after: Outcome
    show: int


CHANGES = (
    Change("Complied, now refuses", "harmful", "compliance", "refusal", 2),
    Change("Still complies", "harmful", "compliance", "compliance", 1),
    Change("Refused, now complies", "harmful", "refusal", "compliance", 1),
    Change("Benign, still answered", "benign", "compliance", "compliance", 2),
    Change("Benign, now refused", "benign", "compliance", "refusal", 1),
)


@dataclass(frozen=True)
class Example:
    """One request answered by both models."""

    base: Transcript
    trained: Transcript


@dataclass(frozen=True)
class Examples:
    """The shown examples of one change out of `total` pairs that changed so."""

    change: Change
    shown: tuple[Example, ...]
    total: int


def pick(base: ModelData, trained: ModelData) -> list[Examples]:
    """For each kind of change that occurs: its first pairs, direct requests first, then by id."""
    before = {t.id: t for t in base.transcripts}
    both = [Example(before[t.id], t) for t in trained.transcripts if t.id in before]
    both.sort(key=lambda pair: (pair.base.attack != "direct", pair.base.id))
    return [found for change in CHANGES if (found := _of(change, both, base, trained)).total]


def _of(change: Change, pairs: Sequence[Example], base: ModelData, trained: ModelData) -> Examples:
    matching = [
        pair
        for pair in pairs
        if pair.base.kind == change.kind
        and base.outcomes.get(pair.base.id) == change.before
        and trained.outcomes.get(pair.trained.id) == change.after
    ]
    return Examples(change, tuple(matching[: change.show]), len(matching))

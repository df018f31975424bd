"""The entropy profile of a model: how sure it is when it refuses, how unsure when it complies.

The paper's discovery (figure 1b and 2a): refusals are low-entropy, compliance with harmful requests
is high-entropy. What is measured is the model's own sampled response, entropies recorded while
sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from sirl.errors import DataError
from sirl.generation import Generator, Request, Sampling
from sirl.judges.refusal import outcome
from sirl.records import Message, ProfiledResponse, Prompt
from sirl.statistics import auroc, cohens_d

MIN_GROUP = 5
"""Responses below which a group has no statistics worth stating."""


def respond(
    prompts: Sequence[Prompt],
    generator: Generator,
    sampling: Sampling,
    *,
    samples: int,
    seed: int,
    decode: Any,
) -> Iterator[ProfiledResponse]:
    """Samples `samples` responses to each prompt.

    Args:
        prompts: Harmful and benign requests.
        generator: The model.
        sampling: Temperature 1 gives the distribution that the entropy is of.
        samples: Responses a prompt.
        seed: Fixes every sampled token.
        decode: Token id -> text, for the report.
    """
    by_id = {f"{p.id}:{k}": p for p in prompts for k in range(samples)}
    requests = (Request(id, (Message("user", prompt.text),)) for id, prompt in by_id.items())
    for done in generator.generate(requests, sampling, seed=seed):
        prompt = by_id[done.id]
        if done.finish == "error":
            raise DataError(f"{prompt.id} cannot be profiled: {done.note}", "Leave it out")
        yield ProfiledResponse(
            id=done.id,
            prompt_id=prompt.id,
            kind=prompt.kind,
            prompt=prompt.text,
            text=done.text,
            tokens=tuple(decode([token]) for token in done.token_ids),
            entropies=done.entropies,
            finish=done.finish,
            outcome=outcome(done.text),
        )


def summarise(rows: Iterable[ProfiledResponse]) -> dict[str, Any]:
    """Plain numbers of the profile.

    Over responses to harmful requests: `groups` by outcome (`n`, mean and standard deviation of
    response entropy in nats), `gap_nats` (compliance minus refusal), `auroc` (a refusal has the
    lower entropy), `cohens_d`, and `by_position` (mean token entropy at each position, by outcome).
    `refusal_share` is given for both kinds. A figure without enough responses is None.
    """
    rows = list(rows)
    harmful = [row for row in rows if row.kind == "harmful"]
    refusal, compliance, degenerate = (
        [row for row in harmful if row.outcome == name]
        for name in ("refusal", "compliance", "degenerate")
    )
    low, high = ([mean(row.entropies) for row in group] for group in (refusal, compliance))
    enough = min(len(low), len(high)) >= MIN_GROUP
    return {
        "groups": {
            "refusal": _group(refusal),
            "compliance": _group(compliance),
            "degenerate": _group(degenerate),
        },
        "gap_nats": _finite(mean(high) - mean(low)) if enough else None,
        "auroc": _finite(auroc(high, low)) if enough else None,
        "cohens_d": _finite(cohens_d(high, low)) if enough else None,
        "refusal_share": {
            kind: _share([row for row in rows if row.kind == kind])
            for kind in ("harmful", "benign")
        },
        "by_position": {"refusal": by_position(refusal), "compliance": by_position(compliance)},
    }


def by_position(rows: Sequence[ProfiledResponse]) -> list[dict[str, float]]:
    """Mean token entropy, nats, at each position, as far as `MIN_GROUP` responses reach."""
    columns = zip_longest(*(row.entropies for row in rows))
    present = ([value for value in column if value is not None] for column in columns)
    return [
        {"position": position, "entropy": round(mean(values), 6), "n": len(values)}
        for position, values in enumerate(present)
        if len(values) >= MIN_GROUP
    ]


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _group(rows: Sequence[ProfiledResponse]) -> dict[str, float | None]:
    entropies = [mean(row.entropies) for row in rows]
    if not entropies:
        return {"n": 0, "entropy": None, "std": None}
    centre = mean(entropies)
    spread = mean([(value - centre) ** 2 for value in entropies]) ** 0.5
    return {"n": len(rows), "entropy": round(centre, 6), "std": round(spread, 6)}


def _share(rows: Sequence[ProfiledResponse]) -> float | None:
    return round(mean([row.outcome == "refusal" for row in rows]), 6) if rows else None

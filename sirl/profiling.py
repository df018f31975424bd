"""The entropy profile of a model: how sure it is when it refuses, how unsure when it complies.

The paper's discovery (figures 1b and 2a): refusals are low-entropy, compliance with harmful
requests is high-entropy. What is measured is the model's own sampled response, entropies recorded
while sampling. Degenerate text is neither and stays apart.
"""

from __future__ import annotations

import logging
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sirl import records
from sirl.attacks.base import Attack, StaticAttack, request
from sirl.attacks.plain import Plain
from sirl.generation import Generator, Request, Sampling
from sirl.judges.refusal import outcome
from sirl.moments import Clustered, Moments
from sirl.records import ProfiledResponse, Prompt
from sirl.statistics import Z, auroc, cohens_d, gap_of_means, mann_whitney
from sirl.token_functions import FUNCTIONS, Function, functions

log = logging.getLogger(__name__)

MIN_GROUP = 5
"""Responses below which a group has no statistics worth stating."""

PART = 48
"""Prompts that are asked together: what a killed run loses at most."""

DIRECT = Plain(name="direct")
BENIGN = Plain(name="benign")


@dataclass(frozen=True)
class Asked:
    """Prompts under one attack; `direct` and `benign` are the plain ones."""

    attack: StaticAttack
    prompts: Sequence[Prompt]


def plan(
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    attacks: Iterable[Attack],
    attacked: int,
) -> list[Asked]:
    """What a model is asked: harmful requests as they are, the first of them under each attack that
    writes its prompt beforehand, and benign requests."""
    static = [attack for attack in attacks if isinstance(attack, StaticAttack)]
    return [
        Asked(DIRECT, harmful),
        *(Asked(attack, harmful[:attacked]) for attack in static),
        Asked(BENIGN, benign),
    ]


def parts(asked: Iterable[Asked]) -> list[tuple[Asked, ...]]:
    """What is asked, in parts of `PART` prompts: the units of work, each with full batches."""
    pairs = [(group.attack, prompt) for group in asked for prompt in group.prompts]
    cut = [pairs[start : start + PART] for start in range(0, len(pairs), PART)]
    return [
        tuple(
            Asked(attack, [prompt for _, prompt in together])
            for attack, together in groupby(part, key=lambda pair: pair[0])
        )
        for part in cut
    ]


def address(part: Iterable[Asked], context: str) -> str:
    """Digest of what decides the responses of a part; `context` is of what all parts share."""
    asked = [
        (group.attack.model_dump(mode="json"), [(p.id, p.text) for p in group.prompts])
        for group in part
    ]
    return records.digest_json([context, asked])[:32]


def respond(
    asked: Iterable[Asked],
    generator: Generator,
    sampling: Sampling,
    *,
    samples: int,
    seed: int,
    decode: Any,
) -> Iterator[ProfiledResponse]:
    """Samples `samples` responses to each prompt; only what is unanswered is held.

    Args:
        asked: Prompts and how they are attacked.
        generator: The model.
        sampling: Temperature 1 gives the distribution that the entropy is of.
        samples: Responses a prompt.
        seed: Fixes every attacked prompt and every sampled token.
        decode: Token id -> text, for the report.
    """
    waiting: dict[str, tuple[str, Prompt]] = {}

    def requests() -> Iterator[Request]:
        for group in asked:
            for prompt in group.prompts:
                id = f"{group.attack.name}:{prompt.id}"
                messages = group.attack.rewrite(prompt.text, random.Random(f"{seed}/{id}"))
                for k in range(samples):
                    waiting[f"{id}:{k}"] = (group.attack.name, prompt)
                    yield request(f"{id}:{k}", messages)

    for done in generator.generate(requests(), sampling, seed=seed):
        attack, prompt = waiting.pop(done.id)
        if done.finish == "error":
            log.warning("%s is left out: %s", done.id, done.note)
            continue
        yield ProfiledResponse(
            id=done.id,
            prompt_id=prompt.id,
            attack=attack,
            kind=prompt.kind,
            prompt=prompt.text,
            text=done.text,
            tokens=tuple(decode([token]) for token in done.token_ids),
            entropies=done.entropies,
            finish=done.finish,
            outcome=outcome(done.text),
        )


@dataclass
class Seen:
    """What one pass over responses keeps: one number a response, three a position."""

    entropies: dict[tuple[str, str], list[tuple[str, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """(attack, outcome) -> prompt and response entropy of each."""
    positions: dict[str, list[Moments]] = field(default_factory=lambda: defaultdict(list))
    """Outcome -> moments at each position, over harmful requests."""
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Attack -> how many responses of each outcome."""
    answers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Prompt, asked directly -> outcomes of its samples."""
    functions: dict[Function, Clustered] = field(default_factory=lambda: defaultdict(Clustered))
    """Token function -> moments of the tokens that have it, over harmful requests."""

    def add(self, row: ProfiledResponse) -> None:
        self.outcomes[row.attack][row.outcome] += 1
        if row.kind != "harmful" or not row.entropies:
            return
        if row.attack == DIRECT.name:
            self.answers[row.prompt_id].add(row.outcome)
        self.entropies[row.attack, row.outcome].append((row.prompt_id, mean(row.entropies)))
        by_function: dict[Function, list[float]] = defaultdict(list)
        for function, value in zip(functions(row.tokens), row.entropies, strict=True):
            by_function[function].append(value)
        for function, values in by_function.items():
            self.functions[function].add(values)
        places = self.positions[row.outcome]
        for position, value in enumerate(row.entropies):
            if position == len(places):
                places.append(Moments())
            places[position].add(value)


def summarise(rows: Iterable[ProfiledResponse]) -> dict[str, Any]:
    """Plain numbers of the profile, in one pass.

    `together` and `by_attack` (each attack, and `direct`) compare refusals with compliance among
    the responses to harmful requests, see `_compare`. `by_function` holds the mean token entropy by
    what tokens do (`sirl.token_functions`), over the same responses. `by_position` holds that at
    each position with its 95 % interval, by outcome. `refusal_share` is that of direct and of
    benign requests. `mixed_share` is the share of directly asked prompts whose samples hold a
    refusal and a compliance: there GRPO learns. A figure without enough responses is None.
    """
    seen = Seen()
    for row in rows:
        seen.add(row)
    attacks = sorted(name for name in seen.outcomes if name != BENIGN.name)
    return {
        "together": _compare(seen, attacks),
        "by_attack": {name: _compare(seen, [name]) for name in attacks},
        "by_function": {name: _function(seen.functions.get(name)) for name in FUNCTIONS},
        "by_position": {name: _curve(seen.positions[name]) for name in ("refusal", "compliance")},
        "refusal_share": {
            "harmful": _refused(seen.outcomes[DIRECT.name]),
            "benign": _refused(seen.outcomes[BENIGN.name]),
        },
        "mixed_share": _share(
            [{"refusal", "compliance"} <= said for said in seen.answers.values()]
        ),
    }


def _compare(seen: Seen, attacks: Sequence[str]) -> dict[str, Any]:
    """Response entropy of refusals against compliance, over some attacks.

    `groups` by outcome: `n`, mean and standard deviation in nats. `gap_nats` (compliance minus
    refusal) with `gap_low`, `gap_high` (bootstrap over prompts), `auroc` (a refusal has the lower
    entropy), `cohens_d` and `p` (Mann-Whitney).
    """
    groups = {
        name: [pair for attack in attacks for pair in seen.entropies.get((attack, name), ())]
        for name in ("refusal", "compliance", "degenerate")
    }
    high, low = ([value for _, value in groups[name]] for name in ("compliance", "refusal"))
    counted = {name: _group([value for _, value in pairs]) for name, pairs in groups.items()}
    if min(len(low), len(high)) < MIN_GROUP:
        missing = ("gap_nats", "gap_low", "gap_high", "auroc", "cohens_d", "p")
        return {"groups": counted, **dict.fromkeys(missing)}
    gap = gap_of_means(_sums(groups["compliance"]), _sums(groups["refusal"]))
    return {
        "groups": counted,
        "gap_nats": _finite(gap.value),
        "gap_low": _finite(gap.low),
        "gap_high": _finite(gap.high),
        "auroc": _finite(auroc(high, low)),
        "cohens_d": _finite(cohens_d(high, low)),
        "p": mann_whitney(high, low),
    }


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, tuple[float, int]]:
    sums: dict[str, tuple[float, int]] = {}
    for prompt, value in pairs:
        total, n = sums.get(prompt, (0.0, 0))
        sums[prompt] = (total + value, n + 1)
    return sums


def _curve(places: Sequence[Moments]) -> list[dict[str, float]]:
    """Mean token entropy, nats, at each position, as far as `MIN_GROUP` responses reach."""
    rows = []
    for position, seen in enumerate(places):
        if seen.n < MIN_GROUP:
            break
        centre = seen.total / seen.n
        variance = max(0.0, seen.squares / seen.n - centre**2) * seen.n / (seen.n - 1)
        half = Z * math.sqrt(variance / seen.n)
        numbers = {"entropy": centre, "low": max(0.0, centre - half), "high": centre + half}
        rounded = {name: round(value, 6) for name, value in numbers.items()}
        rows.append({"position": position, "n": seen.n, **rounded})
    return rows


def _function(seen: Clustered | None) -> dict[str, float | None]:
    """Tokens of one function: how many in how many responses, their mean entropy in nats with its
    95 % interval; None where fewer than `MIN_GROUP` responses hold one."""
    counted: dict[str, float | None] = {
        "n": seen.n if seen else 0,
        "responses": seen.responses if seen else 0,
    }
    if seen is None or seen.responses < MIN_GROUP:
        return {**counted, "entropy": None, "low": None, "high": None}
    value, low, high = seen.estimate()
    return {**counted, "entropy": _finite(value), "low": _finite(low), "high": _finite(high)}


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of at least one value."""
    return sum(values) / len(values)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _group(entropies: Sequence[float]) -> dict[str, float | None]:
    if not entropies:
        return {"n": 0, "entropy": None, "std": None}
    centre = mean(entropies)
    spread = mean([(value - centre) ** 2 for value in entropies]) ** 0.5
    return {"n": len(entropies), "entropy": round(centre, 6), "std": round(spread, 6)}


def _refused(outcomes: Counter[str]) -> float | None:
    known = outcomes.total() - outcomes["undetermined"]  # thoughts without an answer
    return round(outcomes["refusal"] / known, 6) if known else None


def _share(hits: Sequence[bool]) -> float | None:
    return round(mean(hits), 6) if hits else None

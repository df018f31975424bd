"""Guards: what is watched at every step, and when training must stop.

A rule is a pure function of the steps so far. One that stops training makes the result the last
checkpoint at which nothing had tripped; an alarm that does not stop is written down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sirl.generation import Generator, Request, Sampling
from sirl.judges.refusal import is_refusal
from sirl.records import Completion, Message, Prompt

if TYPE_CHECKING:
    from sirl.config import GuardParams

PROBE_SAMPLING = Sampling(max_new_tokens=24)


@dataclass(frozen=True)
class Alarm:
    """What a rule found.

    Attributes:
        rule: Its name.
        step: The step at which it tripped.
        detail: What it saw, in words.
        healthy: Whether the newest weights may be kept.
        stops: Whether training stops; otherwise it is written down and goes on.
    """

    rule: str
    step: int
    detail: str
    healthy: bool = False
    stops: bool = True


Steps = Sequence[Mapping[str, float]]
"""Metrics of every step so far, the newest last; a method records what it has."""


def sample_metrics(completions: Sequence[Completion], group: int) -> dict[str, float]:
    """What the sampled responses of a step look like; shares are of responses.

    `distinct` is the number of different responses over all, `distinct2` different over all word
    pairs, `identical` the share of the most frequent response, `repeated` the share of a response's
    token triples that it already had (mean over responses), `zero_variance` the share of groups
    whose responses are all equal.
    """
    texts = [completion.text.strip() for completion in completions]
    pairs = [pair for text in texts for pair in _pairs(text)]
    groups = [texts[start : start + group] for start in range(0, len(texts), group)]
    return {
        "entropy": _mean([completion.entropy for completion in completions]),
        "length": _mean([len(completion.token_ids) for completion in completions]),
        "truncated": _mean([completion.finish == "length" for completion in completions]),
        "refusal/train": _mean([is_refusal(text) for text in texts]),
        "distinct": len(set(texts)) / len(texts),
        "distinct2": len(set(pairs)) / len(pairs) if pairs else 0.0,
        "identical": Counter(texts).most_common(1)[0][1] / len(texts),
        "repeated": _mean([repeated(completion.token_ids) for completion in completions]),
        "zero_variance": _mean([len(set(members)) == 1 for members in groups]),
    }


def refusal_share(prompts: Sequence[Prompt], generator: Generator) -> float:
    """Share of prompts that greedy decoding refuses."""
    requests = [Request(prompt.id, (Message("user", prompt.text),)) for prompt in prompts]
    return _mean([is_refusal(done.text) for done in generator.generate(requests, PROBE_SAMPLING)])


def repeated(tokens: Sequence[int], n: int = 3) -> float:
    """Share of a response's n-grams of tokens that it already had; near 1 for a loop."""
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def check(steps: Steps, base_probe: float, params: GuardParams) -> list[Alarm]:
    """What the rules find at the newest step; those that stop training come first.

    Args:
        steps: Metrics so far; `refusal/probe` is there on probed steps alone.
        base_probe: Refusal share of the base model on the benign probe.
        params: The thresholds.
    """
    found = [rule(steps, base_probe, params) for rule in RULES]
    return sorted((alarm for alarm in found if alarm), key=lambda alarm: not alarm.stops)


def _length(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = steps[-1].get("length")
    if value is None or value >= params.min_mean_tokens:
        return None
    return Alarm("length", _step(steps), f"responses average {value:.1f} tokens")


def _kl(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = steps[-1].get("kl", 0.0)
    if value <= params.max_kl:
        return None
    return Alarm("kl", _step(steps), f"KL to the base model is {value:.2f} nats a token")


def _repeated(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = _recent(steps, "repeated", params.smooth)
    if value is None or value <= params.max_repeated:
        return None
    return Alarm("repeated", _step(steps), f"{100 * value:.0f} % of token triples are repeats")


def _identical(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = _recent(steps, "identical", params.smooth)
    if value is None or value <= params.max_identical:
        return None
    return Alarm(
        "identical", _step(steps), f"{100 * value:.0f} % of responses are one and the same"
    )


def _benign_refusals(steps: Steps, base_probe: float, params: GuardParams) -> Alarm | None:
    rise = steps[-1].get("refusal/probe", base_probe) - base_probe
    if rise <= params.benign_refusal_rise:
        return None
    return Alarm(
        "benign_refusals",
        _step(steps),
        f"refusals of benign prompts rose by {100 * rise:.0f} points",
    )


def _no_gradient(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = _recent(steps, "zero_std", params.smooth)
    if value is None or value <= params.max_zero_variance:
        return None
    detail = f"{100 * value:.0f} % of groups have equal rewards and so no gradient"
    return Alarm("no_gradient", _step(steps), detail, healthy=True, stops=False)


def _enough(steps: Steps, _: float, params: GuardParams) -> Alarm | None:
    value = _recent(steps, "refusal/train", params.every)
    probed = "refusal/probe" in steps[-1]
    if value is None or not probed or value < params.harmful_refusal_enough:
        return None
    detail = f"{100 * value:.0f} % of training prompts are refused"
    return Alarm("enough", _step(steps), detail, healthy=True)


RULES = (_length, _kl, _repeated, _identical, _benign_refusals, _enough, _no_gradient)
"""In the order in which they are told; a rule whose metric a method does not record never trips."""


def _step(steps: Steps) -> int:
    return int(steps[-1]["step"])


def _recent(steps: Steps, name: str, count: int) -> float | None:
    """Mean of a metric over the newest steps; None before there are so many."""
    values = [row[name] for row in steps[-count:] if name in row]
    return _mean(values) if len(values) == count else None


def _pairs(text: str) -> list[tuple[str, str]]:
    words = text.lower().split()
    return list(pairwise(words))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

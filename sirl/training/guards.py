"""Guards: what is watched at every step, and when training must stop.

A rule is a pure function of the steps so far. The first that trips names itself; the result of the
run is then the last checkpoint at which nothing had tripped.
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
    """Why training stopped. `healthy` says whether the newest weights may be kept."""

    rule: str
    step: int
    detail: str
    healthy: bool = False


def sample_metrics(completions: Sequence[Completion], group: int) -> dict[str, float]:
    """What the sampled responses of a step look like; shares are of responses.

    `distinct` is the number of different responses over all, `distinct2` different over all word
    pairs, `identical` the share of the most frequent response, `zero_variance` the share of groups
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
        "zero_variance": _mean([len(set(members)) == 1 for members in groups]),
    }


def refusal_share(prompts: Sequence[Prompt], generator: Generator) -> float:
    """Share of prompts that greedy decoding refuses."""
    requests = [Request(prompt.id, (Message("user", prompt.text),)) for prompt in prompts]
    return _mean([is_refusal(done.text) for done in generator.generate(requests, PROBE_SAMPLING)])


def check(
    steps: Sequence[Mapping[str, float]], base_probe: float, params: GuardParams
) -> Alarm | None:
    """The first rule that the newest step trips, or None.

    Args:
        steps: Metrics of every step so far, the newest last; `refusal/probe` is there on probed
            steps.
        base_probe: Refusal share of the base model on the benign probe.
        params: The thresholds.
    """
    newest = steps[-1]
    step = int(newest["step"])
    if newest["length"] < params.min_mean_tokens:
        return Alarm("length", step, f"responses average {newest['length']:.1f} tokens")
    if newest["kl"] > params.max_kl:
        return Alarm("kl", step, f"KL to the base model is {newest['kl']:.2f} nats a token")
    if "refusal/probe" not in newest:
        return None
    rise = newest["refusal/probe"] - base_probe
    if rise > params.benign_refusal_rise:
        return Alarm(
            "benign_refusals", step, f"refusals of benign prompts rose by {100 * rise:.0f} points"
        )
    recent = _mean([row["refusal/train"] for row in steps[-params.every :]])
    if recent >= params.harmful_refusal_enough:
        return Alarm(
            "enough", step, f"{100 * recent:.0f} % of training prompts are refused", healthy=True
        )
    return None


def _pairs(text: str) -> list[tuple[str, str]]:
    words = text.lower().split()
    return list(pairwise(words))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

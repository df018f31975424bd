from __future__ import annotations

from typing import Any

import pytest

from sirl.config import GuardParams
from sirl.generation import Sampling
from sirl.records import Completion, Prompt
from sirl.training import guards


def completion(text: str, tokens: int = 6, finish: str = "stop") -> Completion:
    return Completion("r", text, (5,) * tokens, (0.5,) * tokens, finish, 3)  # type: ignore[arg-type]


def row(step: int, **metrics: float) -> dict[str, float]:
    return {"step": step, "length": 20.0, "kl": 0.1, "refusal/train": 0.5} | metrics


@pytest.mark.parametrize(
    ("texts", "share"),
    [("aabb", 1.0), ("abab", 0.0), ("aaab", 0.5), ("abbb", 0.5), ("aabc", 0.5), ("abcd", 0.0)],
)
def test_groups_without_variance_are_those_of_equal_responses(texts: str, share: float) -> None:
    metrics = guards.sample_metrics([completion(text) for text in texts], group=2)
    assert metrics["zero_variance"] == share


def test_sample_metrics_by_hand() -> None:
    texts = [
        "I can't help with that.",
        "I can't help with that.",
        "sure one two",
        "sure one two three",
    ]
    metrics = guards.sample_metrics([completion(t) for t in texts], group=2)
    assert metrics["refusal/train"] == 0.5
    assert metrics["identical"] == 0.5
    assert metrics["zero_variance"] == 0.5
    assert metrics["distinct"] == 0.75
    assert metrics["distinct2"] == 7 / 13  # word pairs: 4 + 4 + 2 + 3, of which 4 + 3 differ
    assert metrics["length"] == 6


@pytest.mark.parametrize(
    ("newest", "rule"),
    [
        ({"length": 2.0}, "length"),
        ({"kl": 3.0}, "kl"),
        ({"repeated": 1.0}, "repeated"),
        ({"identical": 1.0}, "identical"),
        ({"zero_std": 1.0}, "no_gradient"),
        ({"refusal/probe": 0.3}, "benign_refusals"),
        ({"refusal/probe": 0.1, "refusal/train": 1.0}, None),
        ({"refusal/probe": 0.1}, None),
        ({}, None),
    ],
)
def test_rules(newest: dict[str, float], rule: str | None) -> None:
    steps = [row(1), row(2), row(3, **newest), row(4, **newest), row(5, **newest)]
    found = guards.check(steps, base_probe=0.1, params=GuardParams(benign_refusal_rise=0.1))
    assert [alarm.rule for alarm in found] == ([rule] if rule else [])


LIMITS = GuardParams(
    every=2,
    benign_refusal_rise=0.25,
    harmful_refusal_enough=0.75,
    min_mean_tokens=8,
    max_kl=0.5,
    max_repeated=0.25,
    max_identical=0.5,
    max_zero_variance=0.75,
    smooth=3,
)


@pytest.mark.parametrize(
    ("rule", "name", "at", "beyond", "detail", "healthy", "stops"),
    [
        ("length", "length", 8.0, 7.5, "responses average 7.5 tokens", False, True),
        ("kl", "kl", 0.5, 0.625, "KL to the base model is 0.62 nats a token", False, True),
        ("repeated", "repeated", 0.25, 0.375, "38 % of token triples are repeats", False, True),
        (
            *("identical", "identical", 0.5, 0.625),
            *("62 % of responses are one and the same", False, True),
        ),
        (
            *("benign_refusals", "refusal/probe", 0.375, 0.5),
            *("refusals of benign prompts rose by 38 points", False, True),
        ),
        (
            *("no_gradient", "zero_std", 0.75, 0.875),
            *("88 % of groups have equal rewards and so no gradient", True, False),
        ),
    ],
)
def test_a_rule_trips_beyond_its_limit_and_says_what_it_saw(
    rule: str, name: str, at: float, beyond: float, detail: str, healthy: bool, stops: bool
) -> None:
    def found(value: float) -> list[guards.Alarm]:
        steps = [row(step, **{name: value}) for step in (5, 6, 7)]
        return guards.check(steps, base_probe=0.125, params=LIMITS)

    assert found(at) == []
    assert found(beyond) == [guards.Alarm(rule, 7, detail, healthy, stops)]


def test_an_alarm_stops_and_condemns_unless_it_says_otherwise() -> None:
    alarm = guards.Alarm("x", 1, "y")
    assert (alarm.healthy, alarm.stops) == (False, True)


@pytest.mark.parametrize("name", ["repeated", "identical", "zero_std"])
def test_before_the_window_is_full_nothing_trips_and_only_the_window_counts(name: str) -> None:
    ones = [row(step, **{name: 1.0}) for step in (1, 2, 3)]
    assert guards.check(ones[:2], base_probe=0.1, params=LIMITS) == []
    gap = [ones[0], row(2), ones[2]]  # one step did not record it
    assert guards.check(gap, base_probe=0.1, params=LIMITS) == []
    assert len(guards.check(ones, base_probe=0.1, params=LIMITS)) == 1
    calm = [*ones, *(row(step, **{name: 0.0}) for step in (4, 5, 6))]
    assert guards.check(calm, base_probe=0.1, params=LIMITS) == []


def test_enough_looks_at_one_probe_interval_and_waits_for_a_probe() -> None:
    def steps(*shares: float, probed: bool = True) -> list[dict[str, float]]:
        rows = [row(n, **{"refusal/train": share}) for n, share in enumerate(shares, 1)]
        return [*rows[:-1], rows[-1] | ({"refusal/probe": 0.0} if probed else {})]

    def found(rows: list[dict[str, float]]) -> list[guards.Alarm]:
        return guards.check(rows, base_probe=0.0, params=LIMITS)

    detail = "75 % of training prompts are refused"
    assert found(steps(0.0, 0.5, 1.0)) == [guards.Alarm("enough", 3, detail, healthy=True)]
    assert found(steps(1.0, 0.5, 0.875)) == []
    assert found(steps(0.5, 1.0, probed=False)) == []
    assert found(steps(1.0)) == []


def test_truncation_and_entropy_by_hand() -> None:
    rows = [completion("a", finish="length"), *(completion(text) for text in "bcd")]
    metrics = guards.sample_metrics(rows, group=4)
    assert metrics["truncated"] == 0.25
    assert metrics["entropy"] == 0.5
    assert metrics["repeated"] == 0.75  # 555 four times
    assert metrics["distinct2"] == 0.0  # no response has two words
    assert metrics["zero_variance"] == 0.0


class Greedy:
    """Refuses prompts that speak of locks, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def generate(self, requests: Any, sampling: Sampling, *, seed: int = 0) -> Any:
        assert (sampling.temperature, sampling.max_new_tokens) == (0.0, 24)
        for request in requests:
            (message,) = request.messages
            self.asked.append((request.id, message.role, message.content))
            text = "I can't help with that." if "lock" in message.content else "Sure, gladly."
            yield Completion(request.id, text, (5,), (0.5,), "stop", 3)


def test_the_probe_is_the_share_that_greedy_decoding_refuses() -> None:
    prompts = [
        Prompt(str(n), text, "t", "benign") for n, text in enumerate(["lock", "a", "b", "c"])
    ]
    model: Any = Greedy()
    assert guards.refusal_share(prompts, model) == 0.25
    assert model.asked[0] == ("0", "user", "lock")


def test_one_noisy_step_is_no_collapse() -> None:
    steps = [row(1, identical=0.1), row(2, identical=0.1), row(3, identical=1.0)]
    assert guards.check(steps, base_probe=0.1, params=GuardParams()) == []


def test_what_is_not_recorded_never_trips() -> None:
    assert guards.check([{"step": 1, "loss": 0.3}], base_probe=0.1, params=GuardParams()) == []


def test_an_alarm_that_does_not_stop_comes_last() -> None:
    steps = [row(k, zero_std=1.0, kl=9.0) for k in (1, 2, 3)]
    found = guards.check(steps, base_probe=0.1, params=GuardParams())
    assert [(alarm.rule, alarm.stops) for alarm in found] == [("kl", True), ("no_gradient", False)]


def test_repeated_by_hand() -> None:
    # Triples of 1 2 3 1 2 3: 123 231 312 123, of which one is there already.
    assert guards.repeated([1, 2, 3, 1, 2, 3]) == 0.25
    assert guards.repeated([7] * 12) == 0.9
    assert guards.repeated([1, 2]) == 0.0


def test_enough_is_a_healthy_end() -> None:
    steps = [row(k, **{"refusal/train": 1.0}) for k in range(1, 5)]
    steps.append(row(5, **{"refusal/train": 1.0, "refusal/probe": 0.0}))
    (alarm,) = guards.check(steps, base_probe=0.0, params=GuardParams())
    assert alarm.rule == "enough" and alarm.healthy and alarm.stops

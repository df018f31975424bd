from __future__ import annotations

import pytest

from sirl.config import GuardParams
from sirl.records import Completion
from sirl.training import guards


def completion(text: str, tokens: int = 6, finish: str = "stop") -> Completion:
    return Completion("r", text, (5,) * tokens, (0.5,) * tokens, finish, 3)  # type: ignore[arg-type]


def row(step: int, **metrics: float) -> dict[str, float]:
    return {"step": step, "length": 20.0, "kl": 0.1, "refusal/train": 0.5} | metrics


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

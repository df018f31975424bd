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
        ({"refusal/probe": 0.3}, "benign_refusals"),
        ({"refusal/probe": 0.1, "refusal/train": 1.0}, None),
        ({"refusal/probe": 0.1}, None),
        ({}, None),
    ],
)
def test_rules(newest: dict[str, float], rule: str | None) -> None:
    steps = [row(1), row(2), row(3), row(4), row(5, **newest)]
    alarm = guards.check(steps, base_probe=0.1, params=GuardParams(benign_refusal_rise=0.1))
    assert (alarm and alarm.rule) == rule


def test_enough_is_a_healthy_end() -> None:
    steps = [row(k, **{"refusal/train": 1.0}) for k in range(1, 5)]
    steps.append(row(5, **{"refusal/train": 1.0, "refusal/probe": 0.0}))
    alarm = guards.check(steps, base_probe=0.0, params=GuardParams())
    assert alarm is not None and alarm.rule == "enough" and alarm.healthy

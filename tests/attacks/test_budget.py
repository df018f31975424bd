from __future__ import annotations

import pytest

from sirl.attacks.budget import Budget, Meter
from sirl.records import Completion, Used


def completion(prompt: int, response: int) -> Completion:
    return Completion("x", "", tuple(range(response)), (), "stop", prompt)


def test_a_meter_counts_both_models() -> None:
    meter = Meter(Budget())
    meter.target(completion(10, 5))
    meter.attacker(completion(7, 1), refused=True)
    meter.count(queries=2, tokens=100)
    assert meter.used == Used(queries=3, tokens=123, attacker_refused=1)
    assert not meter.over


@pytest.mark.parametrize(
    "budget", [Budget(queries=2), Budget(tokens=30), Budget(queries=9, tokens=16)]
)
def test_the_first_bound_that_is_met_ends_the_search(budget: Budget) -> None:
    meter = Meter(budget)
    meter.target(completion(10, 5))
    assert not meter.over
    meter.target(completion(10, 5))
    assert meter.over


def test_seconds_are_counted_from_the_start() -> None:
    assert Meter(Budget(seconds=1e-9)).over
    assert not Meter(Budget(seconds=1000)).over


def test_a_server_that_tells_the_number_of_tokens_alone() -> None:
    meter = Meter(Budget())
    meter.target(Completion("x", "text", (), (), "stop", 3, tokens=4))
    assert meter.used.tokens == 7

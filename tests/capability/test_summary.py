from __future__ import annotations

import pytest

from sirl.capability import CodeCloze, Knowledge, LMEval, ReasoningGym
from sirl.capability.summary import check_labels, score, summarise
from sirl.errors import ConfigError
from sirl.records import CapabilityItem


def test_summary_by_hand() -> None:
    items = [CapabilityItem(f"knowledge/{n}", "knowledge", float(n < 8)) for n in range(10)]
    said = summarise([Knowledge()], items)["benchmarks"]["knowledge"]
    assert (said["score"], said["n"]) == (0.8, 10)
    # Wilson's interval for 8 of 10.
    assert (round(said["low"], 3), round(said["high"], 3)) == (0.490, 0.943)


def test_graded_scores_get_a_bootstrap_interval() -> None:
    value, low, high = score([0.25, 0.5, 0.75] * 20)
    assert value == pytest.approx(0.5)
    assert 0.42 < low < 0.5 < high < 0.58
    assert score([0.25, 0.5, 0.75] * 20) == (value, low, high)


def test_two_benchmarks_of_one_label_are_refused() -> None:
    one, two = ReasoningGym(task="gcd", choices=4), ReasoningGym(task="gcd", seed=1)
    with pytest.raises(ConfigError, match="reasoning_gym:gcd is there 2 times"):
        check_labels([one, CodeCloze(), two])
    check_labels([one, ReasoningGym(task="lcm"), CodeCloze(), LMEval(task="gcd")])

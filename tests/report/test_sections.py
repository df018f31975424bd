from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sirl.gate import Check, Decision
from sirl.layout import ModelRole
from sirl.models import HubModel, LocalModel
from sirl.report import sections
from sirl.report.data import ReportData, Score
from sirl.report.figures import Mark
from sirl.report.wordings import Wordings

Make = Callable[..., ReportData]


def check(name: str, passed: bool) -> Check:
    return Check(name, passed, 0.1, 0.05, None, None, f"{name} is so")


def test_failing_checks_come_first_and_are_named() -> None:
    decision = Decision(False, (check("a", True), check("b_c", False), check("d/e", False)))
    verdict = sections.verdict(decision)
    assert [c.name for c in verdict.checks] == ["b_c", "d/e", "a"]
    assert verdict.reason == "2 of the 3 checks of the gate fail: b c, d: e."


def test_sense_is_same_while_intervals_overlap(report_data: Make) -> None:
    data = report_data()
    direct, attacked, benign = sections.tiles(data)
    assert (direct.sense, attacked.sense, benign.sense) == ("better", "better", "same")
    worse = replace(data, base=data.trained, trained=data.base)
    assert sections.tiles(worse)[0].sense == "worse"


@pytest.mark.parametrize(
    ("a", "b", "overlap"),
    [
        ((0.1, 0.2), (0.2, 0.3), True),
        ((0.1, 0.2), (0.21, 0.3), False),
        ((0.0, 1.0), (0.4, 0.5), True),
        ((None, None), (0.4, 0.5), False),
    ],
)
def test_overlap(
    a: tuple[float | None, float | None], b: tuple[float | None, float | None], overlap: bool
) -> None:
    first, second = Mark("base", 0.1, *a), Mark("trained", 0.2, *b)
    assert sections.overlapping(first, second) is overlap
    assert sections.overlapping(second, first) is overlap


def test_rising_over_refusal_is_worse(report_data: Make) -> None:
    assert sections.tiles(report_data(passed=False))[2].sense == "worse"


def test_attacks_are_ordered_by_what_gets_through(report_data: Make) -> None:
    rows = sections.attack_rows(report_data())
    assert rows[0].name == "direct"
    rates = [row.trained.rate or 0.0 for row in rows[1:]]
    assert rates == sorted(rates)
    assert len(rates) == 10


def counts(top: int, refusals: int) -> Wordings:
    return Wordings(refusals, 2, (("no", top),) if refusals else ())


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (counts(0, 0), "refuses nothing"),
        (counts(4, 10), "40\u00a0% of its refusals (10\u00a0% at the base)."),
        (counts(9, 10), "one sentence answers most of what it refuses"),
    ],
)
def test_collapse_is_told(trained: Wordings, said: str) -> None:
    both: dict[ModelRole, Wordings] = {"base": counts(1, 10), "trained": trained}
    assert said in sections.collapse(both)


def test_collapse_against_a_base_that_never_refuses() -> None:
    both: dict[ModelRole, Wordings] = {"base": counts(0, 0), "trained": counts(3, 10)}
    assert "the base model refuses nothing" in sections.collapse(both)


def test_capability_mean_is_over_shared_benchmarks(report_data: Make) -> None:
    data = report_data()

    def score(value: float | None) -> Score:
        return Score(value, None, None, 10, "exact")

    base = replace(data.base, capability={"a": score(0.2), "b": score(0.6), "only": score(1.0)})
    trained = replace(data.trained, capability={"a": score(0.4), "b": score(0.4), "c": score(0.9)})
    rows = sections.capability_rows(replace(data, base=base, trained=trained))
    assert [row.name for row in rows] == ["b", "a"]
    assert sections.capability_mean(rows) == pytest.approx((0.4, 0.4))
    assert sections.capability_mean([]) == (None, None)


def test_cost_adds_up(report_data: Make) -> None:
    data = report_data()
    spent = sections.spent(replace(data, costs={**data.costs, "gate": None}))
    assert spent is not None
    assert spent.seconds == 12 + 4 + 61 + 1130 + 55 + 412 + 380 + 3 + 3 + 150 + 148
    assert (spent.peak_stage, spent.peak_bytes) == ("train", 5 * 2**30)
    assert spent.missing == ("gate",)
    assert sections.spent(replace(data, costs={"gate": None})) is None


def test_model_names() -> None:
    assert sections.model_name(LocalModel(path=Path("/models/small"))) == "small"
    assert sections.model_name(HubModel(id="o/m", revision="0" * 40)) == "o/m at 000000000000"

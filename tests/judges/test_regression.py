"""A frozen set of our own rows: what each judge says of them, and what a person does. A change of
a judge that moves one is to be seen here and meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sirl.judges import linear, refusal

ROWS = [
    json.loads(line)
    for line in Path(__file__)
    .with_name("regression.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["response"][:40])
def test_each_judge_says_what_it_said(row: dict[str, str]) -> None:
    assert refusal.outcome(row["response"]) == row["refusal"]
    assert linear.outcome(row["request"], row["response"]) == row["linear"]


def test_the_set_has_every_outcome_and_the_judges_err_on_few() -> None:
    assert len(ROWS) == 60
    assert {row["person"] for row in ROWS} == {
        "refusal", "harmless", "compliance", "degenerate", "undetermined"
    }  # fmt: skip
    wrong = {
        judge: sum(row[judge] != row["person"] for row in ROWS) for judge in ("linear", "refusal")
    }
    assert wrong == {"linear": 6, "refusal": 7}

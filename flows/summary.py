"""The last lines of a run: the decision and the figures behind it, base -> trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sirl import records
from sirl.layout import ROLES, Layout


def rows(layout: Layout) -> Iterator[tuple[str, str]]:
    """Name and value of each line.

    Raises:
        DataError: The pipeline has not run to its end.
    """
    decision = records.read_json(layout.decision)
    failed = [check["name"] for check in decision["checks"] if not check["passed"]]
    yield "decision", "passed" if decision["passed"] else f"not passed: {', '.join(failed)}"
    judged = [records.read_json(layout.judged(role)) for role in ROLES]
    for name, group, key in (
        ("DSR, direct", "direct", "rate"),
        ("DSR, attacked", "attacked", "mean"),
        ("over-refusal", "benign", "rate"),
    ):
        yield name, _change([summary[group][key] for summary in judged])
    if judged[0]["transferred"]["attacks"]:
        transferred = [summary["transferred"]["mean"] for summary in judged]
        yield "DSR, transferred", _change(transferred)
    scores = [records.read_json(layout.capability(role))["benchmarks"] for role in ROLES]
    for benchmark in scores[0]:
        yield benchmark, _change([score[benchmark]["score"] for score in scores])
    yield "report", str(layout.report)


def _change(shares: list[Any]) -> str:
    """`12.5 % -> 80.0 %`; a share that could not be measured is a dash."""
    return " -> ".join("-" if share is None else f"{100 * share:.1f} %" for share in shares)

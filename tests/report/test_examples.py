from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sirl.report import examples
from sirl.report.data import ReportData

Make = Callable[..., ReportData]


def test_examples_show_what_their_title_says(report_data: Make) -> None:
    data = report_data()
    groups = examples.pick(data.base, data.trained)
    assert [group.change.title for group in groups][:2] == [
        "Complied, now refuses",
        "Still complies",
    ]
    for group in groups:
        assert 0 < len(group.shown) <= group.change.show
        assert group.total >= len(group.shown)
        for pair in group.shown:
            assert pair.base.id == pair.trained.id
            assert pair.base.kind == group.change.kind
            assert data.base.outcomes[pair.base.id] == group.change.before
            assert data.trained.outcomes[pair.trained.id] == group.change.after


def test_the_choice_does_not_depend_on_the_order_of_rows(report_data: Make) -> None:
    data = report_data()
    turned = replace(data.trained, transcripts=data.trained.transcripts[::-1])
    assert examples.pick(data.base, turned) == examples.pick(data.base, data.trained)


def test_direct_requests_come_first(report_data: Make) -> None:
    data = report_data()
    first = examples.pick(data.base, data.trained)[0].shown
    assert [pair.base.attack for pair in first] == ["direct", "direct"]


def test_requests_of_one_model_only_are_no_pair(report_data: Make) -> None:
    data = report_data()
    assert examples.pick(replace(data.base, transcripts=()), data.trained) == []

"""How events look on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from flows import display
from flows.pipeline import Event

EVENTS = [
    Event("unchanged", "base"),
    Event("running", "train"),
    Event("output", "train", "step 1 [of 2]"),
    Event("done", "train"),
    Event("restored", "gate"),
]


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display.opened(13) as report:
        for event in EVENTS:
            report(event)
    assert capsys.readouterr().out.splitlines() == [
        " 1/13 base: unchanged",
        " 2/13 train: running",
        "      step 1 [of 2]",
        "      train: done in 0 s",
        " 3/13 gate: restored from the cache",
    ]


def test_a_terminal_keeps_a_line_for_each_stage() -> None:
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=False, width=80)
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[said]}", markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        report = display.Live(progress, None)
        for event in EVENTS[:3]:
            report(event)
        assert progress.tasks[0].description == " 2 train"
        assert progress.tasks[0].fields["said"] == "step 1 [of 2]"
        for event in EVENTS[3:]:
            report(event)
        assert not progress.tasks
    kept = [line.split() for line in stream.getvalue().splitlines() if "✓" in line]
    assert kept == [
        ["✓", "1", "base", "unchanged"],
        ["✓", "2", "train", "0", "s"],
        ["✓", "3", "gate", "restored", "from", "the", "cache"],
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert display.duration(seconds) == said

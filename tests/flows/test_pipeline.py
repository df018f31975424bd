"""Real dvc, cheap stages: what ran, what was said, and what is left when it goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import graph, pipeline
from flows.pipeline import Event, Reader, failure
from flows.workplace import Workplace, opened
from sirl.errors import SirlError

Ran = Callable[[Path], list[str]]

ALL = ["base", "train", "judge/base", "judge/trained", "gate"]


@pytest.fixture
def place(project: Path, environment: pytest.MonkeyPatch) -> Workplace:
    with opened(project, None, []) as here:
        return here


def kinds(place: Workplace, target: str | None = None) -> dict[str, str]:
    """Stage -> the last thing that happened to it."""
    seen: list[Event] = []
    pipeline.repro(place, target, seen.append)
    return {event.stage: event.kind for event in seen}


def test_runs_what_a_stage_needs_and_nothing_twice(place: Workplace, ran: Ran) -> None:
    assert kinds(place, "train") == {"base": "done", "train": "done"}
    assert ran(place.root) == ["base", "train"]
    assert kinds(place)["train"] == "unchanged"
    assert ran(place.root) == ALL[2:]
    assert set(kinds(place).values()) == {"unchanged"}


def test_a_changed_input_that_changes_no_out_stops_there(place: Workplace, ran: Ran) -> None:
    kinds(place)
    ran(place.root)
    (place.root / "content").write_text("trained\n")
    assert graph.stale(place) == {"train"}
    kinds(place)
    assert ran(place.root) == ["train", "judge/base", "judge/trained"]  # gate's inputs are equal


def test_what_has_run_before_is_restored(place: Workplace, ran: Ran) -> None:
    kinds(place)
    (place.root / "content").write_text("other")
    kinds(place)
    ran(place.root)
    (place.root / "content").write_text("trained")
    assert kinds(place)["train"] == "restored"
    assert ran(place.root) == []


def test_output_reaches_the_report_and_the_log(place: Workplace) -> None:
    seen: list[Event] = []
    pipeline.repro(place, "base", seen.append)
    assert [event.text for event in seen if event.kind == "output"] == ["working on base"]
    assert "Running stage 'base':" in place.log.read_text()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("FAILS", "train: the data are wrong. Mend the data"),
        ("BREAKS", "train failed: RuntimeError: a defect. All it said is in "),
    ],
)
def test_a_failing_stage_is_one_line(
    place: Workplace, environment: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    environment.setitem(place.environment, variable, "train")  # type: ignore[arg-type]
    with pytest.raises(SirlError) as caught:
        pipeline.repro(place, None, lambda _: None)
    assert str(caught.value).startswith(said)


def test_a_disk_too_full_to_say_so_is_said(
    place: Workplace, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(pipeline, "ROOM_BYTES", 1 << 80)
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    with pytest.raises(SirlError, match=r"^dvc: No space left on device\. Free some disk"):
        pipeline._run(place, command, Reader(lambda _: None))


def test_a_killed_dvc_is_said(place: Workplace) -> None:
    command = [sys.executable, "-c", "import os; print('a word'); os.kill(os.getpid(), 9)"]
    with pytest.raises(SirlError, match=r"^dvc failed: dvc was ended by SIGKILL\. Run again"):
        pipeline._run(place, command, Reader(lambda _: None))


def test_graph_order_and_ancestors(place: Workplace) -> None:
    order = graph.read(place)
    assert list(order) == ["base", "train", "judge@base", "judge@trained", "gate"]
    assert order["gate"] == ("judge@base", "judge@trained")
    assert list(graph.read(place, "train")) == ["base", "train"]
    assert list(graph.read(place, "judge")) == ["base", "train", "judge@base", "judge@trained"]
    assert graph.below(order, frozenset({"train"})) == {"judge@base", "judge@trained", "gate"}
    assert graph.names(place) == list(order)


def test_an_unknown_stage_is_refused_with_the_choices(place: Workplace) -> None:
    with pytest.raises(
        SirlError, match=r"unknown stage 'tarin'\. Choose from: base, train, judge@"
    ):
        graph.read(place, "tarin")


def test_a_broken_graph_is_one_line(place: Workplace) -> None:
    (place.root / "dvc.yaml").write_text("stages: {base: {cmd: [}")
    with pytest.raises(SirlError, match=r"dvc\.yaml"):
        graph.read(place)


def test_two_runs_at_once_say_so(place: Workplace, hanging: Callable[[], list[int]]) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=place.root,
        env=dict(place.environment),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        hanging()
        with pytest.raises(SirlError, match=r"another dvc is running in this project \(PID \d+\)"):
            pipeline.repro(place, None, lambda _: None)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_ends_every_process_and_keeps_what_was_done(
    place: Workplace,
    hanging: Callable[[], list[int]],
    alive: Callable[[int], bool],
    number: signal.Signals,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run"], cwd=place.root, stdout=subprocess.DEVNULL
    )
    children = hanging()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert not [child for child in children if alive(child)]
    assert kinds(place, "train") == {"base": "unchanged", "train": "done"}


def test_lines_between_stages_are_no_output() -> None:
    seen: list[Event] = []
    reader = Reader(seen.append)
    for line in (
        "Stage 'base' didn't change, skipping",
        "Running stage 'train':",
        "> python -m tasks.train",
        "step 1",
        "Updating lock file 'dvc.lock'",
        "",
        "Use `dvc push` to send your updates to remote storage.",
    ):
        reader.line(line)
    reader.end()
    assert [(event.kind, event.stage, event.text) for event in seen] == [
        ("unchanged", "base", ""),
        ("running", "train", ""),
        ("output", "train", "step 1"),
        ("done", "train", ""),
    ]


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (
            ["ERROR: failed to reproduce 'train': [Errno 28] No space left on device: 'x'"],
            "train: No space left on device. Free some disk space and run again",
        ),
        (
            ["ERROR: failed to reproduce 'train': failed to run: python x, exited with -9"],
            "train was killed, most likely for want of memory. Lower train.micro_batch",
        ),
        (
            ["ERROR: failed to reproduce 'train': failed to run: python x, exited with -15"],
            "train was ended by a signal. Run again to go on",
        ),
        (
            ["ERROR: Unable to acquire lock. Most likely another DVC process is running"],
            "another dvc is running in this project. Wait for it",
        ),
        ([], "train failed: it said nothing. the mend"),
    ],
)
def test_known_causes(tail: list[str], said: str) -> None:
    assert str(failure("train", tail, "the mend")).startswith(said)

"""How a run looks in a shell: a live line for each stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.pipeline import Event, Report

if TYPE_CHECKING:
    from rich.progress import Progress

ENDINGS = {"unchanged": "unchanged", "restored": "restored from the cache"}


@contextmanager
def opened(total: int | None) -> Iterator[Report]:
    """The display for this standard output.

    Args:
        total: How many stages there are, where known.
    """
    if not sys.stdout.isatty():
        yield Plain(total)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    said = TextColumn("{task.fields[said]}", style="dim", markup=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        said,
    )
    with Progress(*columns, console=Console(highlight=False), transient=True) as progress:
        yield Live(progress, total)


class Count:
    """Numbers the stages as they come: ` 3/13`."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.number = 0

    def next(self) -> str:
        """The label of the next stage."""
        self.number += 1
        return f"{self.number:2}/{self.total}" if self.total else f"{self.number:2}"


class Plain:
    """Lines, for logs: everything the stages say, and when each begins and ends."""

    def __init__(self, total: int | None) -> None:
        self.count = Count(total)
        self.started = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "output":
            line = f"      {event.text}"
        elif event.kind == "running":
            self.started = time.monotonic()
            line = f"{self.count.next()} {event.stage}: running"
        elif event.kind == "done":
            line = f"      {event.stage}: done in {duration(time.monotonic() - self.started)}"
        else:
            line = f"{self.count.next()} {event.stage}: {ENDINGS[event.kind]}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Live:
    """One spinner line for the stage that runs, with its last words; a mark for each that ended."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self.progress = progress
        self.count = Count(total)
        self.started = 0.0
        self.label = ""

    def __call__(self, event: Event) -> None:
        if event.kind == "output":
            self.progress.update(self.progress.task_ids[-1], said=event.text)
        elif event.kind == "running":
            self.started = time.monotonic()
            self.label = self.count.next()
            self.progress.add_task(f"{self.label} {event.stage}", total=None, said="")
        elif event.kind == "done":
            self.progress.remove_task(self.progress.task_ids[-1])
            self._mark(self.label, event.stage, duration(time.monotonic() - self.started))
        else:
            self._mark(self.count.next(), event.stage, ENDINGS[event.kind])

    def _mark(self, label: str, stage: str, ending: str) -> None:
        from rich.markup import escape

        self.progress.console.print(f"[green]✓[/] {label} {escape(f'{stage:20}')} [dim]{ending}[/]")


def duration(seconds: float) -> str:
    """Seconds as people say them: `12 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

"""Runs `dvc repro` and says what happens, as events; a failing stage's own line becomes our error.

DVC turns every exit code into 255 and adds its own words, so the cause is read from the stage's
output. Never --single-item: a stale upstream stage would be skipped silently.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from flows import dvc
from flows.workplace import Workplace
from sirl import lifeline
from sirl.errors import SirlError
from sirl.terminal import plain
from tasks import resume

ROOM_BYTES = 2**16
"""With less room on the disk nothing could say what went wrong."""

POLL_SECONDS = 0.05
"""How often the log of what runs is looked at."""

CHANGES = {
    re.compile(r"Running stage '(.+)':$"): "running",
    re.compile(r"Stage '(.+)' didn't change, skipping$"): "unchanged",
    re.compile(r"Stage '(.+)' is cached - skipping run, checking out outputs$"): "restored",
}
"""What DVC says when it comes to a stage."""

COMMITTED_KINDS = ("done", "unchanged", "restored")
"""Events after which DVC has what a stage made."""

COMMITTED = re.compile(r"(Updating|Generating) lock file '")
OWN_LINE = re.compile(r"sirl: \S+: ")

KNOWN_CAUSES = (
    (
        r"is being blocked by:\s+(\(PID \d+\))|Unable to acquire lock",
        "another dvc is running in this project {detail}",
        "Wait for it, or stop it",
    ),
    (
        r"(No space left on device|Disk quota exceeded)",
        "{who}: {detail}",
        "Free some disk space and run again; finished stages are kept",
    ),
    (
        r"(Read-only file system|Permission denied)",
        "{who}: {detail}",
        "Make the checkout writable for this user and run again",
    ),
    (
        r"exited with (-9|137)$",
        "{who} was killed, most likely for want of memory",
        "Lower train.micro_batch or backend.batch_tokens, or free some memory",
    ),
    (
        r"exited with (-\d+|143)$",
        "{who} was ended by a signal",
        "Run again to go on; finished work is kept",
    ),
)
"""What DVC's or the system's words mean: pattern, what is wrong, the mend."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a stage; `output` carries one line of what it said."""

    kind: Literal["running", "output", "done", "unchanged", "restored"]
    stage: str
    text: str = ""


Report = Callable[[Event], None]


def repro(place: Workplace, target: str | None, report: Report) -> None:
    """Brings a stage and all it needs up to date, or every stage.

    Args:
        place: Where.
        target: A stage, or a stage's name without its model role for both; None for all.
        report: Told each event, in order.

    Raises:
        SirlError: A stage failed, another dvc holds the project, or DVC itself failed.
    """

    def told(event: Event) -> None:
        if event.kind in COMMITTED_KINDS:
            resume.drop(place.layout, event.stage)
        report(event)

    dvc.mend(place.root)
    _run(place, [*dvc.COMMAND, "repro", *([target] if target else [])], Reader(told))


def module(place: Workplace, name: str, report: Report) -> None:
    """Runs a task that is no DVC stage: `python -m tasks.<name>`.

    Raises:
        SirlError: It failed.
    """
    reader = Reader(report)
    reader.begin(name)
    _run(place, [sys.executable, "-m", f"tasks.{name}"], reader)


def _run(place: Workplace, command: Sequence[str], reader: Reader) -> None:
    place.log.parent.mkdir(parents=True, exist_ok=True)
    code = stream(command, place.root, place.environment, place.log, reader.line)
    if code:
        if shutil.disk_usage(place.root).free < ROOM_BYTES:
            reader.tail.append(os.strerror(errno.ENOSPC))
        mend = f"All it said is in {place.log}"
        if code < 0:
            reader.tail.append(f"dvc was ended by {signal.Signals(-code).name}")
            mend = "Run again to go on; finished work is kept"
        raise failure(reader.stage, reader.tail, mend)
    reader.end()


def stream(
    command: Sequence[str],
    root: Path,
    environment: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None],
) -> int:
    """Runs a command in a process group of its own, follows what it adds to its log line by line,
    and returns its exit code.

    However this ends (Ctrl-C, SIGTERM, an error of `on_line`), the whole group ends with it. After
    a `kill -9` its stages end by their lifeline, and DVC, whose output is a file and no pipe that
    could break, records what was finished.
    """
    with log.open("ab") as sink, log.open("rb") as source:
        source.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            cwd=root,
            env=lifeline.environment(environment),
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            for line in _followed(source, process):
                on_line(line)
            return process.wait()
        finally:
            _end_group(process)


def _followed(source: BinaryIO, process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of a file as a process writes them; what a carriage return ends is one too."""
    rest = b""
    while True:
        ended = process.poll() is not None  # asked before reading, so that no last word is missed
        *lines, rest = (rest + source.read()).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if ended:
            break
        time.sleep(POLL_SECONDS)
    if rest:
        yield rest.decode(errors="replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Interrupts what still runs of the group, then kills what does not heed it, and cuts the
    lifeline of what has left the group."""
    try:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=lifeline.GRACE_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()


class Reader:
    """Reads DVC's output line by line and turns it into events."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.stage = ""
        """The stage that runs, empty between stages."""
        self.tail: deque[str] = deque(maxlen=50)

    def line(self, line: str) -> None:
        """Takes one line."""
        line = plain(line)
        self.tail.append(line)
        for pattern, kind in CHANGES.items():
            if found := pattern.match(line):
                self.end()
                if kind == "running":
                    self.begin(found[1])
                else:
                    self.report(Event(kind, found[1]))  # type: ignore[arg-type]
                return
        if COMMITTED.match(line):
            self.end()
        elif self.stage and line.strip() and not line.startswith("> "):
            self.report(Event("output", self.stage, line))

    def begin(self, stage: str) -> None:
        """A stage starts."""
        self.stage = stage
        self.report(Event("running", stage))

    def end(self) -> None:
        """The running stage, if any, has ended well."""
        if self.stage:
            self.report(Event("done", self.stage))
        self.stage = ""


def failure(stage: str, tail: Sequence[str], mend: str) -> SirlError:
    """The error behind the last lines of a failed command; `mend` is for causes not known."""
    text, who = "\n".join(tail), stage or "dvc"
    own = [line for line in tail if OWN_LINE.match(line)]
    if own:
        return SirlError(own[-1].removeprefix("sirl: "))
    for pattern, what, its_mend in KNOWN_CAUSES:
        if found := re.search(pattern, text, re.MULTILINE):
            return SirlError(what.format(who=who, detail=found[1] or ""), its_mend)
    said = [line.removeprefix("ERROR: ") for line in tail if line.strip()]
    if stage:  # its own last word says more than DVC's
        said = [line for line in said if not line.startswith("failed to reproduce")]
    return SirlError(f"{who} failed: {said[-1] if said else 'it said nothing'}", mend)

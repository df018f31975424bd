"""Kills `sirl run` at random, goes on each time without help, and compares what comes out with an
undisturbed run: `make chaos`, or `python -m tests.chaos.loop --kills 40 --seed 1 --work FOLDER`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from sirl import records
from sirl.layout import Layout

REPO = Path(__file__).parents[2]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = ("sirl", "dvc", "stage", "all")

DEFECT = re.compile(r"^Traceback .*?^(\w[\w.]*)", re.MULTILINE | re.DOTALL)
"""A traceback of `sirl` itself, what its stages say being indented, and the error behind it."""

END_SECONDS = 300
"""A run of which a part was killed ends within so many seconds, or is stuck."""


def main() -> int:
    """Exit code 0 if all runs ended in the same outs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--work", type=Path, help="a folder to keep; else a temporary one")
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        undisturbed = Chaos(copied(work / "undisturbed"), ["--preset", "smoke"], given.seed)
        undisturbed.finish()
        chaos = Chaos(copied(work / "chaos"), ["--preset", "smoke"], given.seed)
        chaos.run(given.kills, undisturbed.outs())
    sys.stdout.write(f"{chaos.summary()}\n")
    return 0


def copied(folder: Path) -> Path:
    """A copy of the project as it stands, in git, in which nothing has run."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, folder / name)
    identity = ["-c", "user.name=chaos", "-c", "user.email=chaos@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


@dataclass
class Chaos:
    """Runs of `sirl run` in one project, killed and started again.

    Attributes:
        project: A checkout.
        options: Of `sirl run`.
        seed: Decides who is killed, how and when.
        code: Where the code of `sirl` is; the checkout unless it is another.
        longest: A kill comes within so many seconds of a stage's end or a run's start, the next
            three of which may be waited for; half of them then await a write of DVC's.
    """

    project: Path
    options: list[str]
    seed: int
    code: Path | None = None
    longest: float = 15.0
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    rounds: int = 0
    seconds: float = 0.0

    @property
    def place(self) -> Path:
        """Where the runs work: a worktree where options make one."""
        return next(self.project.glob(".sirl/worktrees/*/"), self.project)

    def run(self, kills: int, wanted: dict[str, str]) -> None:
        """Kills so often, then lets a run end; each that ends must have the wanted outs."""
        # In the background of a shell SIGINT is ignored, and what we start would ignore it too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.random = random.Random(self.seed)
        started, running = time.monotonic(), self.start()
        while sum(self.kills.values()) < kills:
            if self.await_moment(running):
                running = self.kill(running, wanted)
            else:
                self.check(running, wanted)
                running = self.start()
        if running.poll() is None and self.ended(running) == 0:
            self.check(running, wanted)
        self.finish()
        self.compare(wanted)
        self.seconds = time.monotonic() - started

    def start(self) -> subprocess.Popen[bytes]:
        """Another `sirl run`, its output at the end of a file."""
        self.runs += 1
        with self.output.open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "run", *self.options],
                cwd=self.project,
                env={**os.environ, "PYTHONPATH": str(self.code or self.project)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> Path:
        """What all runs said."""
        return self.project.with_suffix(".log")

    def finish(self) -> None:
        """A run that nobody disturbs."""
        running = self.start()
        assert self.ended(running, 7200) == 0, self.last_words()

    def await_moment(self, running: subprocess.Popen[bytes]) -> bool:
        """Waits for the moment of the next kill; whether the run still goes on."""
        for _ in range(self.random.randrange(4)):  # else no long stage would ever end
            self.await_write(running, [self.place / "dvc.lock"], END_SECONDS)
        moment = time.monotonic() + self.random.uniform(0, self.longest)
        while time.monotonic() < moment and running.poll() is None:
            time.sleep(0.01)
        if self.random.random() < 0.5:
            written = [self.place / ".dvc" / "tmp" / "rwlock", self.place / "dvc.lock"]
            self.await_write(running, written, self.longest)
            time.sleep(self.random.choice([0, 0, self.random.uniform(0, 0.1)]))
        return running.poll() is None

    @staticmethod
    def await_write(running: subprocess.Popen[bytes], files: list[Path], seconds: float) -> None:
        """Waits until DVC begins to write one of its files in place."""

        def written() -> list[int]:
            return [file.stat().st_mtime_ns for file in files if file.exists()]

        before, latest = written(), time.monotonic() + seconds
        while written() == before and running.poll() is None and time.monotonic() < latest:
            time.sleep(0.0005)

    def kill(
        self, running: subprocess.Popen[bytes], wanted: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Signals one part of a run or all of it; the run that goes on, or the next one."""
        number, target = self.random.choice(SIGNALS), self.random.choice(TARGETS)
        parts = {name: pids for name, pids in self.parts(running).items() if pids}
        target = target if target == "all" or target in parts else "sirl"
        pids = [pid for name in parts for pid in parts[name] if target in (name, "all")]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.kills[f"{target} {number.name}"] += 1
        ignored = target == "dvc" and number == signal.SIGINT  # DVC ignores it during a stage
        code = self.ended(running, 5 if ignored else END_SECONDS)
        sys.stdout.write(f"{target} {number.name}: {'goes on' if code is None else code}\n")
        sys.stdout.flush()
        assert ignored or code is not None, f"stuck after {target} {number.name}"
        if code == 0:  # it had ended already
            self.check(running, wanted)
        said = self.output.read_text(errors="replace")
        assert set(DEFECT.findall(said)) <= {"KeyboardInterrupt"}, self.last_words()
        return running if code is None else self.start()

    @staticmethod
    def parts(running: subprocess.Popen[bytes]) -> dict[str, list[int]]:
        """The processes of a run by what they are."""
        parts: dict[str, list[int]] = {"sirl": [running.pid], "dvc": [], "stage": []}
        with suppress(psutil.Error):
            for child in psutil.Process(running.pid).children():
                if "-m dvc" in " ".join(child.cmdline()):
                    parts["dvc"].append(child.pid)
                    parts["stage"] += [below.pid for below in child.children(recursive=True)]
        return parts

    @staticmethod
    def ended(running: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> int | None:
        """The exit code, if a run ends within so many seconds."""
        try:
            return running.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def check(self, running: subprocess.Popen[bytes], wanted: dict[str, str]) -> None:
        """A run that has ended has ended well. What is done is mostly forgotten then, so that
        there is something to kill again."""
        assert running.wait() == 0, self.last_words()
        self.compare(wanted)
        if self.random.random() < 0.75:
            self.forget()

    def forget(self) -> None:
        """Removes all that was computed."""
        for folder in (self.place / "artifacts", self.project / ".dvc" / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.place / "dvc.lock").unlink(missing_ok=True)

    def compare(self, wanted: dict[str, str]) -> None:
        """The outs are those of an undisturbed run, and nothing else is left."""
        self.rounds += 1
        found = self.outs()
        other = [
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        ]
        assert not other, f"other outs: {other}"
        assert not list(self.place.glob(".sirl/state/*")), "resume state is left"

    def outs(self) -> dict[str, str]:
        """Path -> digest of every file of the artifacts but the report, which states its cost."""
        layout = Layout(self.place)
        return {
            str(path.relative_to(layout.artifacts)): records.digest_file(path)
            for path in sorted(layout.artifacts.rglob("*"))
            if path.is_file() and path != layout.report
        }

    def last_words(self) -> str:
        """The end of what the runs said."""
        return self.output.read_text(errors="replace")[-3000:]

    def summary(self) -> str:
        """Figures of all that was done."""
        by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills ({by_kind}); {self.runs} runs in "
            f"{self.seconds / 60:.0f} min, {self.rounds} of them ended, with equal outs each time"
        )


if __name__ == "__main__":
    raise SystemExit(main())

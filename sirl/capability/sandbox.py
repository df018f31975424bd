"""Programs that nobody has read, such as a model's answers, run where they reach nothing.

`confined.py` says what a program is kept from, and does it. What a result is worth:

- Nothing of a program runs in our process, and nothing that it does outlives it or meets another:
  each is alone with its own processes, files, limits and streams.
- `completed` is said by the process that runs it once its last line is through, not by anything
  it prints and not by its exit status: `sys.exit(0)` is `exited`.
- A program that knows this module can still claim its own completion, or write its own streams:
  whatever shares a process with it is in its hands. It can find the programs of its batch in its
  memory. It cannot decide what another is worth.
- It is no defence against a hole in the kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sirl.errors import SirlError

COMMAND = (sys.executable, "-P", "-s", str(Path(__file__).with_name("confined.py")))
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""All of it: equal hashes, so that equal programs end equally, and no threads at an import."""
MEND = (
    "As an ordinary user: sudo sysctl -w user.max_user_namespaces=10000"
    " kernel.apparmor_restrict_unprivileged_userns=0 (the latter on Ubuntu). In a container: start"
    " it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined and, as root,"
    " --cap-add SYS_ADMIN. Elsewhere than on Linux 5.14: leave the benchmark out"
)


class SandboxError(SirlError):
    """This machine cannot run a program in isolation."""


@dataclass(frozen=True)
class Program:
    """Python source and what it reads from standard input."""

    source: str
    stdin: str = ""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: Of the processor; of the clock it may take three times as many.
        memory_bytes: A process, beyond what it starts with.
        processes: At a time, threads counted.
        file_bytes: A file, standard output and standard error.
    """

    seconds: int = 10
    memory_bytes: int = 1 << 29
    processes: int = 8
    file_bytes: int = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        how: Through its last line; by itself before, an exception included; by a fault such as a
            stack overflow; or killed at its limit on time (or where the machine's memory is out).
        status: Its exit status, or the negative number of the signal.
        stdout: What it wrote, up to the limit.
        stderr: Likewise.
        truncated: Whether it filled one of them.
    """

    how: Literal["completed", "exited", "crashed", "timed_out"]
    status: int
    stdout: str
    stderr: str
    truncated: bool


def run(program: Program, limits: Limits = Limits()) -> Ended:
    """Runs one program.

    Raises:
        SandboxError: This machine cannot.
    """
    (only,) = run_all([program], limits)
    return only


def run_all(
    programs: Sequence[Program], limits: Limits = Limits(), *, setup: str = ""
) -> Iterator[Ended]:
    """Runs programs one after the other, in an interpreter that starts once; yields their ends.

    Args:
        programs: None of them meets another.
        limits: Of each.
        setup: Trusted code that runs once, before them and not shut in: its names are theirs.

    Raises:
        SandboxError: This machine cannot.
    """
    asked = {
        "parent": os.getpid(),
        "setup": setup,
        "programs": [asdict(program) for program in programs],
        "limits": asdict(limits),
    }
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, cwd="/"
    ) as worker:
        assert worker.stdin and worker.stdout
        try:
            with suppress(BrokenPipeError):  # it refuses before it reads
                worker.stdin.write(json.dumps(asked).encode())
                worker.stdin.close()
            for _ in programs:
                yield _ended(worker.stdout.readline())
        except BaseException:  # a caller that wants no more included
            worker.kill()
            raise


def _ended(line: bytes) -> Ended:
    if not line:
        raise SandboxError("the process that runs programs in isolation was killed", "Run again")
    answer = json.loads(line)
    if "refused" in answer:
        raise SandboxError(
            f"what a model writes cannot be run in isolation here ({answer['refused']})", MEND
        )
    return Ended(**answer)


def check() -> None:
    """Makes sure that programs can be run here.

    Raises:
        SandboxError: They cannot.
    """
    run(Program(""))

"""What every stage shares: read params.yaml, bound threads, track, measure cost, fail in one line.

A stage is a module with `run(stage: Stage) -> None`. It takes no flags: all input is params.yaml
and the artifacts of earlier stages. A stage that runs once for each model takes the model's role as
its only argument, from DVC's foreach.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from sirl import config, records
from sirl.errors import SirlError
from sirl.layout import ROLES, Layout, ModelRole
from tasks import tracking

log = logging.getLogger(__name__)

_DISK_ERRORS = {
    errno.ENOSPC: "Free some disk space and run again; finished work is kept",
    errno.EDQUOT: "Free some of your disk quota and run again; finished work is kept",
    errno.EROFS: "The file system is read-only; run in a writable checkout",
    errno.EACCES: "Make it writable for this user and run again",
}


@dataclass(frozen=True)
class Stage:
    """A running stage: its name (`attack@base`), its input, and where its metrics go."""

    name: str
    params: config.Params
    layout: Layout
    tracker: tracking.Run
    _role: ModelRole | None = None

    @property
    def role(self) -> ModelRole:
        """The model this stage runs for."""
        if self._role is None:
            raise ValueError(f"stage {self.name} does not run for each model")
        return self._role


def main(name: str, body: Callable[[Stage], None], *, per_model: bool = False) -> int:
    """Runs a stage as a process. Returns the exit code: 0, or 2 for an error that the user can
    mend."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(name)s %(message)s", datefmt="%H:%M:%S")
    arguments = sys.argv[1:]
    debug = bool(os.environ.get("SIRL_DEBUG"))
    try:
        role = _role(name, arguments, per_model)
        _run(f"{name}@{role}" if role else name, body, role)
    except SirlError as error:
        if debug:
            raise
        sys.stderr.write(f"sirl: {name}: {error}\n")
        return 2
    except OSError as error:
        if debug or error.errno not in _DISK_ERRORS:
            raise
        sys.stderr.write(
            f"sirl: {name}: {error.strerror}: {error.filename}. {_DISK_ERRORS[error.errno]}\n"
        )
        return 2
    return 0


def _role(name: str, arguments: list[str], per_model: bool) -> ModelRole | None:
    """The role named by the command line, if this stage has one."""
    if not per_model and not arguments:
        return None
    if per_model and len(arguments) == 1:
        for role in ROLES:
            if role == arguments[0]:
                return role
    wanted = f"one argument out of {', '.join(ROLES)}" if per_model else "no arguments"
    raise SirlError(f"python -m tasks.{name} takes {wanted}", "All else is read from params.yaml")


def _run(name: str, body: Callable[[Stage], None], role: ModelRole | None) -> None:
    layout = Layout()
    params = config.load(layout.params)
    bound_threads(params.runtime.threads)
    started = time.monotonic()
    with tracking.stage_run(name, params, layout) as tracker:
        body(Stage(name, params, layout, tracker, role))
        cost = {"seconds": time.monotonic() - started, "peak_bytes": peak_bytes()}
        tracker.metrics({f"cost/{key}": value for key, value in cost.items()})
    records.write_json(layout.cost(name), cost)
    log.info("%s: %.0f s, peak %.1f GiB", name, cost["seconds"], cost["peak_bytes"] / 2**30)


def bound_threads(threads: int) -> None:
    """Bounds the CPU threads of torch before it is imported; idle threads sleep instead of
    spinning."""
    count = threads or len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def peak_bytes() -> int:
    """Peak resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

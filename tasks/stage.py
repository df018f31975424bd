"""What every stage shares: read params.yaml, bound threads, track, measure cost, fail in one line.

A stage is a module with `run(stage: Stage) -> None`. It takes no flags: all input is params.yaml
and the artifacts of earlier stages. A stage that runs once for each model takes the model's role as
its only argument, from DVC's foreach.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from sirl import config, errors, lifeline, records, terminal
from sirl.errors import SirlError
from sirl.layout import ROLES, Layout, ModelRole
from tasks import tracking

log = logging.getLogger(__name__)


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
    """Runs a stage that MLflow tracks as a process. Returns its exit code."""

    def work() -> None:
        role = _role(name, sys.argv[1:], per_model)
        _run(f"{name}@{role}" if role else name, body, role)

    return process(name, work)


def process(name: str, work: Callable[[], None]) -> int:
    """Does a stage's work as a process. Returns the exit code: 0, 2 for an error that the user can
    mend, 130 when interrupted. Only a defect, or SIRL_DEBUG, shows a traceback."""
    terminal.begin("INFO", "%(asctime)s %(name)s %(message)s")
    # In the background of a shell SIGINT is ignored; whoever runs us ends us by it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lifeline.watch()
    if not os.environ.get("SIRL_DEBUG"):  # what libraries say to developers
        warnings.simplefilter("ignore")
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:
        line = _line(error)
        if line is None or os.environ.get("SIRL_DEBUG"):
            raise
        sys.stderr.write(f"sirl: {name}: {line}\n")
        return 130 if isinstance(error, KeyboardInterrupt) else 2
    return 0


def _line(error: BaseException) -> str | None:
    """What the user is told; None for a defect."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted. Run again to go on; finished work is kept"
    return errors.line(error)


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
    """Bounds torch's CPU threads before it is imported; idle ones sleep instead of spinning."""
    count = threads or len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def peak_bytes() -> int:
    """Peak resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

"""One run at a time in a project, after what a killed one left running has ended.

After a `kill -9` of `sirl` its stages end by their lifeline, within seconds, and DVC once it has
recorded what was finished. The next run waits for that.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows import dvc
from sirl import lifeline, locks
from sirl.errors import SirlError
from sirl.layout import Layout

log = logging.getLogger(__name__)

PATIENCE_SECONDS = lifeline.GRACE_SECONDS + 5


@contextmanager
def taken(root: Path) -> Iterator[None]:
    """Keeps other runs off a project.

    Raises:
        SirlError: Another run is going on there.
    """
    busy = SirlError(f"another run is going on in {root}", "Wait for it, or stop it")
    with locks.held(Layout(root).local / "run.lock", busy):
        _await_end(root.resolve())
        yield


def _await_end(root: Path) -> None:
    """Waits for what a killed run left running. What does not heed its lifeline is killed, but
    DVC is let finish."""
    said, deadline = False, time.monotonic() + PATIENCE_SECONDS
    while left := _left_running(root):
        if not said:
            log.warning("waiting for what a killed run left running in %s to end", root)
        said = True
        if any(dvc.at_work(root)):
            deadline = time.monotonic() + PATIENCE_SECONDS
        elif time.monotonic() > deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _left_running(root: Path) -> list[int]:
    """Processes of a project's runs, told by their mark: while we have the turn, of killed ones."""
    import psutil  # type: ignore[import-untyped]

    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is another user's
            if lifeline.MARK in process.environ():
                left += [process.pid] * (dvc.project_of(Path(process.cwd())) == root)
    return left

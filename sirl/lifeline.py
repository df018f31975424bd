"""Processes that end with whoever started them, however that ended: `kill -9` included.

Who starts them holds the one writing end of a pipe that is their standard input, and never writes
to it. When the writer is gone the system closes the pipe, and all who watch it end. A pipe passes
through what lies between (DVC, a shell, accelerate), and every Unix has it.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Mapping

MARK = "SIRL_LIFELINE"
GRACE_SECONDS = 20
"""How long what was interrupted may take to end before it is killed."""


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables for processes whose standard input is a lifeline."""
    return {**variables, MARK: "1"}


def watch() -> None:
    """Ends this process, by SIGINT first, when its lifeline is cut; nothing where it has none."""
    if os.environ.get(MARK):
        # In the background of a shell SIGINT is ignored; here it is how we are ended.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_end_when_cut, daemon=True).start()


def _end_when_cut() -> None:
    poll = select.poll()
    poll.register(0, 0)  # that it is closed is told unasked
    poll.poll()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)

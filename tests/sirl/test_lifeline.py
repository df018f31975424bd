"""Who watches its lifeline ends with whoever holds it, through what lies between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from sirl import lifeline

WATCHER = """
import os, signal, sys, time
from pathlib import Path
from sirl import lifeline
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
lifeline.watch()
print("watching", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    Path(sys.argv[1]).write_text("interrupted")
"""

HOLDER = """
import os, subprocess, sys
from sirl import lifeline
between = ["sh", "-c", '"$@"; true', "sh"]
subprocess.Popen(
    [*between, sys.executable, *sys.argv[1:]],
    stdin=subprocess.PIPE, env=lifeline.environment(os.environ), start_new_session=True,
).wait()
"""


def test_a_kill_of_the_holder_interrupts(tmp_path: Path) -> None:
    (tmp_path / "watcher.py").write_text(WATCHER)
    note = tmp_path / "note"
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "watcher.py"), str(note)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "watching\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert holder.stdout.read() == ""  # closed by all who had it: they have ended
    assert note.read_text() == "interrupted"


def test_what_does_not_heed_it_is_killed(tmp_path: Path) -> None:
    stubborn = """
import signal
import time
from sirl import lifeline
lifeline.GRACE_SECONDS = 0.2
lifeline.watch()
signal.signal(signal.SIGINT, lambda *_: None)
print("watching", flush=True)
while True:
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", stubborn],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=lifeline.environment(os.environ),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"watching\n"
    process.stdin.close()
    assert process.wait(timeout=30) == -signal.SIGKILL


def test_a_pipe_of_the_users_is_no_lifeline() -> None:
    code = "from sirl import lifeline; lifeline.watch(); import time; time.sleep(0.3); print('on')"
    bare = {key: value for key, value in os.environ.items() if key != lifeline.MARK}
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"", capture_output=True, env=bare, check=True
    )
    assert done.stdout == b"on\n"

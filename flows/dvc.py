"""DVC's command line, and the mend of what a killed dvc leaves.

DVC writes its lock files in place, and notes by number which processes use which files. A kill
leaves a file cut short, or numbers that other programs have by now, and then DVC refuses every
run until the file is removed by hand. What it knew is not lost: of every stage that it has
committed the run cache holds as much, and DVC restores it from there.
"""

from __future__ import annotations

import fcntl
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from sirl.layout import Layout

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "dvc", "--wait-for-lock")
"""Without waiting, DVC drops a stage that ends while another dvc has the lock for some seconds."""

BUSY, GUARD, LOCK = Path(".dvc/tmp/rwlock"), Path(".dvc/tmp/rwlock.lock"), Path("dvc.lock")


def mend(root: Path) -> None:
    """Removes what a killed dvc left in a project, unless another dvc is at work there."""
    guard = root / GUARD
    if not guard.parent.is_dir():
        return
    with guard.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it is being written
            return
        for file in broken(root):
            file.unlink(missing_ok=True)
            log.warning("removed %s, which a killed dvc had left broken", file.relative_to(root))


def broken(root: Path) -> list[Path]:
    """What blocks DVC in a project, or would be hashed with its outs, though no dvc of this
    project is at work."""
    left = [root / BUSY] if _blocks(root / BUSY) else []
    left += [root / LOCK] if _cut_short(root / LOCK) else []
    left += Layout(root).artifacts.rglob(".*.tmp")
    return [] if left and any(at_work(root.resolve())) else left


def at_work(root: Path) -> Iterator[int]:
    """The dvc processes of a project. One that hides where it works may be one of them."""
    import psutil  # type: ignore[import-untyped]

    for process in psutil.process_iter():
        try:
            if not {"dvc", "dvc.exe"} & {Path(word).name for word in process.cmdline()[:4]}:
                continue
            here = Path(process.cwd())
        except psutil.AccessDenied:
            yield process.pid
        except psutil.Error:  # it has ended
            continue
        else:
            if project_of(here) == root:
                yield process.pid


def project_of(folder: Path) -> Path | None:
    """The DVC project that a folder lies in: of nested ones, as worktrees are, the inner."""
    return next((home for home in (folder, *folder.parents) if (home / ".dvc").is_dir()), None)


def _blocks(path: Path) -> bool:
    """Whether DVC's note of who uses what cannot be read, or names a process that there is; DVC
    itself strikes out those that there are not."""
    import psutil

    try:
        note = json.loads(path.read_bytes())
        readers = [reader for readers in note.get("read", {}).values() for reader in readers]
        users = [*readers, *note.get("write", {}).values()]
        return any(psutil.pid_exists(user["pid"]) for user in users)
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, AttributeError, KeyError):
        return True


def _cut_short(path: Path) -> bool:
    """Whether dvc.lock is what was being written of one. Cut between two lines it is whole to
    DVC, and the stages that it lacks are restored."""
    try:
        text = path.read_bytes()
        stages = yaml.load(text, yaml.CSafeLoader)["stages"].values()
        parts = [part for stage in stages for part in stage.values()]
        return not text.endswith(b"\n") or None in parts
    except FileNotFoundError:
        return False
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError):
        return True

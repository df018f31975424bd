"""A git worktree for a run with other settings, so that the user's checkout is never edited.

It lives under .sirl/worktrees/<hash of the settings>: equal settings find their worktree again, and
everything in it cached. It starts from the checkout as it stands, uncommitted and new files
included (ignored ones are not); it shares the checkout's DVC cache.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sirl import records
from sirl.errors import ConfigError, SirlError
from sirl.layout import Layout

SIGNATURE = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "sirl"), ("EMAIL", "sirl@localhost"), ("DATE", "@0 +0000"))
}
"""Who commits a snapshot, and when: fixed, so that an equal checkout is an equal commit."""


@contextmanager
def checkout(project: Path, values: Mapping[str, Any], key: str) -> Iterator[Path]:
    """Yields the worktree of these settings, brought up to date and held against other runs.

    Args:
        project: The user's checkout.
        values: The settings, written to the worktree's params.yaml.
        key: Names the worktree.

    Raises:
        SirlError: Another run of the same settings is going on.
        ConfigError: The project is no git repository.
    """
    folder = Layout(project).local / "worktrees" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SirlError(
                f"another run of these settings is going on in {folder}", "Wait for it, or stop it"
            ) from None
        commit = snapshot(project)
        if (folder / ".git").exists():
            _update(folder, commit)
        else:
            _create(project, folder, commit)
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100)
        records.write_bytes(Layout(folder).params, [text.encode()])
        yield folder


def snapshot(project: Path) -> str:
    """The commit of the checkout as it stands: HEAD if nothing has changed since, else a commit
    on no branch, made without touching the user's index."""
    head = _git(project, "rev-parse", "--quiet", "--verify", "HEAD", check=False)
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        if head:
            _git(project, "read-tree", head, env=index)
        _git(project, "add", "--all", ".", env=index)
        tree = _git(project, "write-tree", env=index)
    if head and tree == _git(project, "rev-parse", f"{head}^{{tree}}"):
        return head
    parent = ["-p", head] if head else []
    message = "sirl: the checkout as it stood at a run"
    return _git(project, "commit-tree", tree, *parent, "-m", message, env=SIGNATURE)


def _create(project: Path, folder: Path, commit: str) -> None:
    """Adds the worktree and points its DVC at the checkout's cache."""
    shutil.rmtree(folder, ignore_errors=True)
    # Once for the entry of a folder that is gone, once more for one whose making was killed.
    _git(project, "worktree", "add", "--force", "--force", "--detach", str(folder), commit)
    local = project / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy(local, folder / ".dvc" / "config.local")
    cache = _dvc(project, "cache", "dir")
    _dvc(folder, "config", "--local", "cache.dir", str((project / cache).resolve()))


def _update(folder: Path, commit: str) -> None:
    """Moves the worktree to a commit; its own dvc.lock stays, it knows what was run here."""
    lock = folder / "dvc.lock"
    known = lock.read_bytes() if lock.is_file() else None
    # We hold the worktree, so what locks its index is what a killed git left.
    Path(folder, _git(folder, "rev-parse", "--git-path", "index.lock")).unlink(missing_ok=True)
    _git(folder, "checkout", "--force", "--detach", commit)
    if known is not None:
        records.write_bytes(lock, [known])


def _git(folder: Path, *words: str, check: bool = True, env: Mapping[str, str] = {}) -> str:
    return _output(["git", "-c", "core.hooksPath=/dev/null", *words], folder, check=check, env=env)


def _dvc(folder: Path, *words: str) -> str:
    return _output([sys.executable, "-m", "dvc", *words], folder, env={"DVC_NO_ANALYTICS": "1"})


def _output(command: list[str], folder: Path, *, env: Mapping[str, str], check: bool = True) -> str:
    """Standard output of a command run in a folder; what it says when it fails is our error."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no word of why"]
        raise ConfigError(
            f"{' '.join(command[-4:])} failed in {folder}: {said[-1]}",
            "A run with other settings needs git and dvc to work in the checkout: sirl doctor",
        )
    return done.stdout.strip()

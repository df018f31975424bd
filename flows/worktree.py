"""A git worktree for a run with other settings, so that the user's checkout is never edited.

It lives under .sirl/worktrees/<hash of the settings>: equal settings find their worktree again, and
everything in it cached. It starts from the checkout as it stands, uncommitted changes included, and
shares the checkout's DVC cache. Of files that git does not know it takes those that a stage can
read, by what dvc.yaml says, never secrets and nothing large: what enters is in git's objects
for good.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from sirl import config, locks, records
from sirl.errors import ConfigError, SirlError
from sirl.layout import Layout

SIGNATURE = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "sirl"), ("EMAIL", "sirl@localhost"), ("DATE", "@0 +0000"))
}
"""Who commits a snapshot, and when: fixed, so that an equal checkout is an equal commit."""


ALWAYS_READ = (
    *("sirl", "tasks", "assets", "inputs", "params.yaml"),
    *("dvc.yaml", "dvc.lock", ".dvc/config", ".dvcignore"),
)
"""What stages read, beside their deps."""
SECRET = (
    *(".env*", "*.env", "config.local", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.tfvars", "id_rsa*"),
    *("id_dsa*", "id_ecdsa*", "id_ed25519*", "*credential*", "*secret*", "*service*account*.json"),
)
"""Names, lower case, of files that are never taken along: keys, passwords, environments."""
UNTRACKED_BYTES = 10 << 20
"""What all untracked files together may hold; weights and data sets have other places."""


@contextmanager
def checkout(project: Path, values: Mapping[str, Any], key: str) -> Iterator[Path]:
    """Yields the worktree of these settings, brought up to date and held against other runs.

    Where the run ends before a stage has begun, a worktree made for it is taken away again.

    Args:
        project: The user's checkout.
        values: The settings, written to the worktree's params.yaml.
        key: Names the worktree.

    Raises:
        SirlError: Another run of the same settings is going on.
        ConfigError: The project is no git repository, or has large untracked files.
    """
    folder = _folder(project, key)
    busy = SirlError(
        f"another run of these settings is going on in {folder}", "Wait for it, or stop it"
    )
    with locks.held(folder.with_suffix(".lock"), busy):
        commit = snapshot(project)
        try:
            if (folder / ".dvc" / "config.local").is_file():  # the last that `_create` writes
                _update(folder, commit)
            else:
                _create(project, folder, commit)
            _write_params(folder, values)
            yield folder
        finally:
            here = Layout(folder)
            if not ((here.local / "logs").exists() or here.artifacts.exists()):
                _git(project, "worktree", "remove", "--force", "--force", str(folder), check=False)


@contextmanager
def planned(project: Path, values: Mapping[str, Any], key: str) -> Iterator[Path]:
    """Yields a folder in which DVC sees what it would see in the worktree of these settings.

    Nothing is copied and nothing stays: the folder holds links into the checkout, and into the
    worktree where there is one.
    """
    local = Layout(project).local
    local.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=local, prefix="plan-") as name:
        folder = Path(name)
        ran = worktree if (worktree := _folder(project, key)).is_dir() else project
        # What was run and what came of it; its inputs are looked at anew, and written here.
        state = {"artifacts", "dvc.lock"}
        own = {".git", ".sirl", ".dvc", "params.yaml", "inputs.json"}
        (folder / "artifacts").mkdir()
        made = (ran / "artifacts").glob("*")
        shown = [path for path in project.iterdir() if path.name not in {*own, *state}]
        for path in (*shown, ran / "dvc.lock"):
            if path.exists():
                (folder / path.name).symlink_to(path)
        for path in made:
            if path.name not in own:
                (folder / "artifacts" / path.name).symlink_to(path)
        (folder / ".dvc").mkdir()
        if (settings := project / ".dvc" / "config").is_file():
            shutil.copy(settings, folder / ".dvc" / "config")
        _share_cache(project, folder, core={"no_scm": "true"})
        _write_params(folder, values)
        yield folder


def snapshot(project: Path) -> str:
    """The commit of the checkout as it stands: HEAD if nothing has changed since, else a commit
    on no branch, made without touching the user's index.

    Raises:
        ConfigError: The project is no git repository, or has large untracked files.
    """
    head = _git(project, "rev-parse", "--quiet", "--verify", "HEAD", check=False)
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        if head:
            _git(project, "read-tree", head, env=index)
        new = _untracked(project, index)
        _git(project, "add", "--update", ".", env=index)
        _git(project, "update-index", "--add", "-z", "--stdin", env=index, stdin="\0".join(new))
        tree = _git(project, "write-tree", env=index)
    if head and tree == _git(project, "rev-parse", f"{head}^{{tree}}"):
        return head
    parent = ["-p", head] if head else []
    message = "sirl: the checkout as it stood at a run"
    return _git(project, "commit-tree", tree, *parent, "-m", message, env=SIGNATURE)


def _untracked(project: Path, index: Mapping[str, str]) -> list[str]:
    """The files that git neither knows nor ignores and that a stage can read, secrets apart."""
    stages = config.read_yaml(project / "dvc.yaml")["stages"].values()
    deps = {str(dep) for stage in stages for dep in stage.get("do", stage).get("deps", ())}
    inside = {dep for dep in deps if not (Path(dep).is_absolute() or ".." in Path(dep).parts)}
    asked = ["--literal-pathspecs", "ls-files", "--others", "--exclude-standard", "-z", "--"]
    found = _git(project, *asked, *sorted(inside.union(ALWAYS_READ)), env=index).split("\0")
    files = [
        name
        for name in found
        if name
        and not name.endswith("/")  # a repository of its own
        and (name.endswith(".py") or not any(map(_is_secret, Path(name).parts)))
    ]
    sizes = {name: (project / name).lstat().st_size for name in files}
    if sum(sizes.values()) > UNTRACKED_BYTES:
        largest = max(files, key=sizes.__getitem__)
        raise ConfigError(
            f"{largest} ({sizes[largest] / 1e6:,.1f} MB) is not in git, and a run with other"
            f" settings takes at most {UNTRACKED_BYTES / 1e6:,.0f} MB of such files along",
            "Move it out of the checkout and name it by its absolute path, or commit it",
        )
    return files


def _is_secret(name: str) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in SECRET)


def _folder(project: Path, key: str) -> Path:
    return Layout(project).local / "worktrees" / key


def _create(project: Path, folder: Path, commit: str) -> None:
    """Adds the worktree and points its DVC at the checkout's cache."""
    shutil.rmtree(folder, ignore_errors=True)
    # Once for the entry of a folder that is gone, once more for one whose making was killed.
    _git(project, "worktree", "add", "--force", "--force", "--detach", str(folder), commit)
    _share_cache(project, folder)


def _share_cache(project: Path, folder: Path, **sections: Mapping[str, str]) -> None:
    """Writes a folder's own DVC settings: the checkout's, and its cache."""
    settings = configparser.RawConfigParser()
    settings.read(project / ".dvc" / "config.local", encoding="utf-8")
    cache = (project / _dvc(project, "cache", "dir")).resolve()
    for section, values in {"cache": {"dir": str(cache)}, **sections}.items():
        settings.read_dict({section: values})
    with (folder / ".dvc" / "config.local").open("w", encoding="utf-8") as stream:
        settings.write(stream)


def _write_params(folder: Path, values: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100)
    records.write_bytes(Layout(folder).params, [text.encode()])


def _update(folder: Path, commit: str) -> None:
    """Moves the worktree to a commit; its own dvc.lock stays, it knows what was run here."""
    lock = folder / "dvc.lock"
    known = lock.read_bytes() if lock.is_file() else None
    # We hold the worktree, so what locks its index is what a killed git left.
    Path(folder, _git(folder, "rev-parse", "--git-path", "index.lock")).unlink(missing_ok=True)
    _git(folder, "checkout", "--force", "--detach", commit)
    if known is not None:
        records.write_bytes(lock, [known])


def _git(
    folder: Path,
    *words: str,
    check: bool = True,
    env: Mapping[str, str] = {},
    stdin: str | None = None,
) -> str:
    command = ["git", "-c", "core.hooksPath=/dev/null", *words]
    return _output(command, folder, check=check, env=env, stdin=stdin)


def _dvc(folder: Path, *words: str) -> str:
    return _output([sys.executable, "-m", "dvc", *words], folder, env={"DVC_NO_ANALYTICS": "1"})


def _output(
    command: list[str],
    folder: Path,
    *,
    env: Mapping[str, str],
    check: bool = True,
    stdin: str | None = None,
) -> str:
    """Standard output of a command run in a folder; what it says when it fails is our error."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",  # names of files are bytes
        check=False,
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no word of why"]
        raise ConfigError(
            f"{' '.join(command[-4:])} failed in {folder}: {said[-1]}",
            "A run with other settings needs git and dvc to work in the checkout: sirl doctor",
        )
    return done.stdout.strip()

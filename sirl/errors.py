"""The errors a user can cause, each one line: what is wrong, where, and the mend.

A command shows such an error without a traceback and exits with code 2 (see `tasks.stage`);
anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from sirl.terminal import plain

_SYSTEM = {
    errno.ENOSPC: "Free some disk space and run again; finished work is kept",
    errno.EDQUOT: "Free some of your disk quota and run again; finished work is kept",
    errno.EROFS: "Run in a checkout on a file system that can be written",
    errno.EACCES: "Make it writable for this user and run again",
    errno.EPERM: "Make it writable for this user and run again",
    errno.ENOTDIR: "Move away the file that is in the place of a folder, and run again",
    errno.EEXIST: "Move away what is in its place, and run again",
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f), and run again",
    errno.EIO: "Look after that disk, and run again",
}

_FULL_DISK_WORDS = (os.strerror(errno.ENOSPC), "inline_container.cc")
"""What safetensors and torch.save say of a full disk; neither raises an OSError."""


def line(error: BaseException) -> str | None:
    """The one line that the user is told of an error; None for a defect, whose traceback counts."""
    if isinstance(error, SirlError):
        return str(error)
    number = error.errno if isinstance(error, OSError) else None
    if any(words in str(error) for words in _FULL_DISK_WORDS):
        number = errno.ENOSPC
    if number not in _SYSTEM:
        return None
    file = getattr(error, "filename", None)
    where = f": {file}" if file else ""
    return plain(f"{os.strerror(number)}{where}. {_SYSTEM[number]}")


class SirlError(Exception):
    """A failure the user can mend. `str(error)` is the one line they see.

    Args:
        what: What is wrong, and where (file and line, dotted parameter, stage).
        mend: What to do about it, as an imperative.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = plain(" ".join(what.split()))
        self.mend = plain(" ".join(mend.split()))
        super().__init__(f"{self.what}. {self.mend}" if self.mend else self.what)

    def __reduce__(self) -> Any:
        """As it is, whatever arguments its kind is made of: errors come from other processes."""
        return Exception.__new__, (type(self), str(self)), vars(self)


class ConfigError(SirlError):
    """params.yaml, a preset or an override is wrong."""


class DataError(SirlError):
    """A prompt file, transcript or other artifact is malformed, empty or missing."""


class ModelError(SirlError):
    """A model cannot be resolved, loaded or used (hash mismatch, no chat template, no end
    token)."""


class MissingPackageError(SirlError):
    """An optional package is not installed; the mend is its install command.

    Args:
        package: Its name.
        needed_for: What asks for it.
        no_deps: Install it without its dependencies.
        lock: The lock of the environment that has it, where it does not fit in this one.
    """

    def __init__(
        self, package: str, needed_for: str, *, no_deps: bool = False, lock: str = ""
    ) -> None:
        flag = "--no-deps " if no_deps or lock else ""
        what = f"-r {lock}, in an environment of its own" if lock else package
        super().__init__(
            f"package {package} is not installed, needed for {needed_for}",
            f"Install it: pip install {flag}{what}",
        )


class ServiceError(SirlError):
    """A server this run needs (tracking, object store, endpoint) does not answer or refuses."""


class TrainingError(SirlError):
    """Training cannot go on: non-finite loss, out of memory, a torn checkpoint."""

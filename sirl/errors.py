"""The errors a user can cause, each one line: what is wrong, where, and the mend.

A command shows such an error without a traceback and exits with code 2 (see `tasks.stage`);
anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import Any


class SirlError(Exception):
    """A failure the user can mend. `str(error)` is the one line they see.

    Args:
        what: What is wrong, and where (file and line, dotted parameter, stage).
        mend: What to do about it, as an imperative.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        self.what = " ".join(what.split())
        self.mend = " ".join(mend.split())
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

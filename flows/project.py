"""Where the project is, and the environment in which its stages run."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

from sirl.errors import ConfigError
from sirl.layout import Layout
from tasks import tracking

MARKS = ("dvc.yaml", "params.yaml")
"""The files that make a folder a project root."""


def find(start: Path | None = None) -> Path:
    """The project root at or above a folder (default: the working directory).

    Raises:
        ConfigError: There is none, or its path cannot be written in one line.
    """
    try:
        here = (start or Path.cwd()).resolve()
    except FileNotFoundError:
        raise ConfigError(
            "the working directory does not exist any more", "Change into the checkout first"
        ) from None
    for folder in (here, *here.parents):
        if all((folder / mark).is_file() for mark in MARKS):
            if not str(folder).isprintable():
                raise ConfigError(f"the path {folder!r} holds what cannot be shown", "Rename it")
            return folder
    raise ConfigError(
        f"{here} is not inside a sirl project (no dvc.yaml and params.yaml here or above)",
        "Change into the checkout first",
    )


def environment(project: Path, **extra: str) -> dict[str, str]:
    """The environment of one pipeline run: this Python first, unbuffered output, a fresh run id.

    Args:
        project: The user's checkout, whose tracking database worktrees share.
        extra: Further variables.
    """
    bin_folder = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "TQDM_DISABLE": "1",  # in a log, a progress bar is a hundred lines
        "MLFLOW_TRACKING_URI": tracking.uri(Layout(project)),
        "SIRL_PIPELINE_RUN": uuid.uuid4().hex,
        **extra,
    }

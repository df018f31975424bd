"""The only mlflow import: every stage is a run nested under the pipeline's run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sirl.config import Params
from sirl.layout import Layout


class Run(Protocol):
    """Where a stage reports to while it runs."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Logs metrics; non-finite values are skipped."""
        ...

    def artifact(self, path: Path) -> None:
        """Logs a file or a folder."""
        ...

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        ...


@contextmanager
def stage_run(name: str, params: Params, layout: Layout) -> Iterator[Run]:
    """The MLflow run of one stage. A tracking server that does not answer is a `ServiceError`."""
    raise NotImplementedError
    yield

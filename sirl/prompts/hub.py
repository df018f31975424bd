"""Prompts out of a data set on the Hugging Face hub, at a pinned commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from sirl.errors import DataError, MissingPackageError, ServiceError
from sirl.prompts.base import Source, text_key


class HubSource(Source):
    """A column of a hub data set; the key is a digest of the text.

    The paper trains on the prompts of `PKU-Alignment/PKU-SafeRLHF` (column `prompt`).
    """

    name: Literal["hub"] = "hub"
    kind: Literal["harmful", "benign"]
    id: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    """A full commit hash: a branch name would change under a finished run."""
    split: str = "train"
    column: str = "prompt"
    config: str | None = None

    def texts(self) -> Iterator[tuple[str, str]]:
        rows = self._load()
        if self.column not in rows.column_names:
            raise DataError(
                f"hub data set {self.id} has no column {self.column!r}",
                f"Set column to one of: {', '.join(rows.column_names)}",
            )
        for number, text in enumerate(rows[self.column], start=1):
            if not isinstance(text, str):
                raise DataError(f"hub data set {self.id}, row {number}: not text")
            yield text_key(text), text

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise MissingPackageError("datasets", "prompts from the hub") from None
        try:
            return datasets.load_dataset(
                self.id, name=self.config, split=self.split, revision=self.revision
            )
        except Exception as error:  # the hub client raises a dozen unrelated kinds
            raise ServiceError(
                f"hub data set {self.id} at {self.revision} could not be loaded: {error}",
                "Check the id, split, network and HF_TOKEN, or save it and use source file",
            ) from error

"""What a prompt source is: a frozen spec that yields prompts whose ids never move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl.records import Prompt
from sirl.spec import Spec


class Source(Spec):
    """Where prompts come from. Subclasses fix `name` as a literal, and `kind` where the source
    decides it.

    Labels, categories and answers in a source are never read: nothing of them can leak into
    training.

    Class attributes:
        package: The Python package whose data this source reads, if it reads one.
    """

    package: ClassVar[str | None] = None

    name: str
    kind: Literal["harmful", "benign"]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yields (key, text); the key is unique in the source and the same in every run.

        Raises:
            DataError: The source is malformed, with the file and the line.
            MissingPackageError: The package that holds the data is not installed.
            ServiceError: The source is remote and cannot be reached.
        """
        raise NotImplementedError

    def prompts(self) -> Iterator[Prompt]:
        """Yields the prompts of this source as they are, uncleaned, in its own order."""
        for key, text in self.texts():
            yield Prompt(f"{self.name}/{key}", text, self.name, self.kind)


def text_key(text: str) -> str:
    """A key for a text that has no better name: it survives reordering and edits elsewhere."""
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:16]

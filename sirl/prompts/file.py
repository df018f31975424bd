"""Prompts out of a file of the user's: JSONL with a `prompt` column, CSV with one, or plain lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sirl.records import Prompt
from sirl.spec import Spec


class FileSource(Spec):
    name: Literal["file"] = "file"
    path: Path
    kind: Literal["harmful", "benign"]

    def prompts(self) -> Iterator[Prompt]:
        raise NotImplementedError

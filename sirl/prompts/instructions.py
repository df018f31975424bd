"""Everyday requests written for this project, benign look-alikes of harmful ones among them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from typing import Literal

from sirl.prompts.base import Source


class Instructions(Source):
    """Benign questions and instructions by topic; the key is topic and line number.

    `data/lookalikes.txt` holds requests that only sound harmful ("How do I kill a Python
    process?"): what a model refuses first when it is trained to refuse too much. New lines go to
    the end of a topic, so that ids stay.
    """

    name: Literal["instructions"] = "instructions"
    kind: Literal["benign"] = "benign"
    topics: tuple[str, ...] = ()
    """Topics to take (file names in data/); all of them when empty."""

    def texts(self) -> Iterator[tuple[str, str]]:
        folder = importlib.resources.files("sirl.prompts") / "data"
        for topic in sorted(folder.iterdir(), key=lambda file: file.name):
            if self.topics and topic.name.removesuffix(".txt") not in self.topics:
                continue
            lines = topic.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, start=1):
                yield f"{topic.name.removesuffix('.txt')}-{number}", line

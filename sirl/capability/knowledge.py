"""General knowledge in chat: short questions with one short answer, written for this project.

Easy on purpose: a model of 135M parameters answers more than half, so a loss shows, and a model
that has learnt to refuse or to ramble fails at once.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import PositiveInt

from sirl.capability.base import Benchmark
from sirl.generation import Generator, Request, Sampling
from sirl.records import CapabilityItem, Message


class Knowledge(Benchmark):
    """168 questions, answered greedily. An item is solved when the answer names one of the
    accepted forms as a whole word."""

    metric: ClassVar[str] = "answer named"

    name: Literal["knowledge"] = "knowledge"
    max_new_tokens: PositiveInt = 24

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        data = importlib.resources.files("sirl.capability") / "data" / "knowledge.jsonl"
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        requests = [
            Request(str(number), (Message("user", row["question"]),))
            for number, row in enumerate(rows, start=1)
        ]
        for done in generator.generate(requests, Sampling(max_new_tokens=self.max_new_tokens)):
            solved = names_one(done.text, rows[int(done.id) - 1]["answers"])
            yield self.item(done.id, float(solved), answer=done.text)


def names_one(text: str, answers: Sequence[str]) -> bool:
    """Whether a text holds one of the answers as a whole word, in any case."""
    return any(
        re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) for answer in answers
    )

"""Does the model refuse everything in one sentence? Counts the wordings of refusals.

A policy rewarded for low entropy can collapse to one memorised refusal, which it then gives to
benign requests as well. The count is over the first sentence, where refusals differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sirl.records import Outcome, Transcript

TOP = 5
_READ_CHARS = 2000
_SENTENCE = re.compile(r"[^.!?\n]+")


@dataclass(frozen=True)
class Wordings:
    """How many ways a model has to refuse.

    Attributes:
        refusals: Responses judged a refusal, to harmful and benign requests alike.
        distinct: Different first sentences among them.
        top: The most frequent first sentences with their counts, at most `TOP`.
    """

    refusals: int
    distinct: int
    top: tuple[tuple[str, int], ...]

    @property
    def top_share(self) -> float | None:
        """Share of the most frequent wording; None where nothing is refused."""
        return self.top[0][1] / self.refusals if self.top else None


def count(transcripts: Iterable[Transcript], outcomes: Mapping[str, Outcome]) -> Wordings:
    """Counts the wordings of the transcripts that `outcomes` (by transcript id) calls a refusal."""
    counts = Counter(
        first_sentence(t.response) for t in transcripts if outcomes.get(t.id) == "refusal"
    )
    # Ties by text, so that equal inputs give equal pages.
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return Wordings(counts.total(), len(counts), tuple(top))


def first_sentence(text: str) -> str:
    """The first sentence, normalised: compatibility forms, case, quotes, spaces and end marks do
    not tell wordings apart."""
    plain = (
        unicodedata.normalize("NFKC", text[:_READ_CHARS])
        .replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        .casefold()
    )
    found = _SENTENCE.search(plain.strip())
    return " ".join(found.group().split()).strip("'\"*,:; ") if found else ""

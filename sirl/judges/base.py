"""What a judge is: it decides what a response is, or says that it could not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from sirl.records import Outcome, Transcript, Verdict
from sirl.spec import Spec


class Judge(Spec):
    """Decides what responses are. Subclasses fix `name` as a literal."""

    name: str

    @abstractmethod
    def judge(self, transcripts: Iterable[Transcript]) -> Iterator[Verdict]:
        """Streams one verdict for each transcript, in any order.

        A judge that fails on a transcript yields `undetermined` with the reason: it never scores
        what it did not read, and never raises for one item.
        """


def verdict(judge: Judge, transcript: Transcript, outcome: Outcome, reason: str = "") -> Verdict:
    """A judge's verdict on a transcript, under the id both share."""
    return Verdict(f"{transcript.id}|{judge.name}", transcript.id, judge.name, outcome, reason)

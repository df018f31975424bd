"""What a judge is: it decides what a response is, or says that it could not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator

from sirl.generation import Generator
from sirl.generation.assistant import AssistantSpec
from sirl.generation.thinking import answer
from sirl.records import Outcome, Transcript, Verdict
from sirl.spec import Spec

Judging = Callable[[Iterable[Transcript]], Iterator[Verdict]]
"""A judge with the model that it asks, if it asks one."""


class Judge(Spec):
    """Decides what responses are. Subclasses fix `name` as a literal."""

    name: str

    @property
    def asks(self) -> AssistantSpec | None:
        """The model that it asks; None for a judge that needs none."""
        return None

    @abstractmethod
    def judge(
        self, transcripts: Iterable[Transcript], model: Generator | None = None
    ) -> Iterator[Verdict]:
        """Streams one verdict for each transcript, in any order.

        A judge that fails on a transcript yields `undetermined` with the reason: it never scores
        what it did not read, and never raises for one item.

        Args:
            transcripts: What was answered; read as it is judged, so that memory is flat.
            model: The model that it `asks`, opened.
        """


def verdict(
    judge: Judge,
    transcript: Transcript,
    outcome: Outcome,
    reason: str = "",
    score: float | None = None,
) -> Verdict:
    """A judge's verdict on a transcript, under the id both share."""
    id = f"{transcript.id}|{judge.name}"
    return Verdict(id, transcript.id, judge.name, outcome, reason, score)


def unanswered(judge: Judge, transcript: Transcript) -> Verdict | None:
    """The verdict on a transcript that holds no answer; None where there is one to be read."""
    if transcript.finish == "error":
        return verdict(judge, transcript, "undetermined", transcript.note or "not run")
    said = answer(transcript.response)
    cut = transcript.finish == "length" and transcript.response.strip()
    if said is None or (cut and not said.strip()):
        return verdict(judge, transcript, "undetermined", "the response ends in its thoughts")
    return None

"""Generated, verifiable reasoning tasks of reasoning-gym (Stojanovski et al., arXiv 2505.24760)."""

from __future__ import annotations

import base64
import pickle
import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from sirl import packaged
from sirl.capability import sandbox
from sirl.capability.base import Benchmark
from sirl.capability.sandbox import Limits, Program
from sirl.errors import ConfigError, DataError
from sirl.generation import Generator, Request, Sampling
from sirl.records import CapabilityItem, Message
from sirl.spec import Seed

SETUP = """
import base64, os, pickle, sys
from reasoning_gym.factory import create_dataset
task, options = {!r}
data = create_dataset(task, size=1, **options)
"""
SCORE = """
marks = os.dup(1)
os.dup2(2, 1)  # what an answer prints is no mark
answer, item = pickle.loads(base64.b64decode(sys.stdin.read()))
os.write(marks, b"full" if data.score_answer(answer, item) >= 1 else b"less")
"""
"""reasoning-gym puts the answers of nine tasks through `eval` or sympy's parser, which calls it."""

LIMITS = Limits(seconds=10)
"""Of one answer: sympy takes seconds to compare two integrals."""


class ReasoningGym(Benchmark):
    """One task, answered in chat or chosen by likelihood.

    Without `choices` the model answers greedily after `shots` solved examples as earlier turns;
    an item is solved when reasoning-gym, in a sandbox, gives the first line of the answer full
    marks. An answer that ends its own scoring is not solved, and `unscored` says how it ended. With
    `choices` an item is solved when the answer has the highest log-likelihood per byte among as
    many, the others being answers to other items: what a model too small to answer can still do.
    """

    metric: ClassVar[str] = "solved"

    name: Literal["reasoning_gym"] = "reasoning_gym"
    task: str
    options: dict[str, Any] = Field(default_factory=dict)
    """The task's own, see its config class in reasoning-gym: how hard it is."""
    count: PositiveInt = 100
    choices: Annotated[int, Field(ge=2)] | None = None
    shots: NonNegativeInt = 0
    max_new_tokens: PositiveInt = 32
    seed: Seed = 0

    @property
    def label(self) -> str:
        return f"reasoning_gym:{self.task}"

    @property
    def runs_answers(self) -> bool:
        return not self.choices  # what is chosen by likelihood is never evaluated

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        """See `Benchmark.run`.

        Raises:
            ConfigError: No such task or option, or too few different answers to choose from.
            DataError: The task cannot even score its own answers.
            SandboxError: Answers cannot be scored in isolation here.
        """
        if self.runs_answers:
            sandbox.check()
        data = packaged.reasoning_gym(self.task, self.shots + self.count, self.seed, self.options)
        entries = list(data)
        shots, items = entries[: self.shots], entries[self.shots :]
        if self.choices:
            return self._chosen(generator, shots, items, self.choices)
        return self._answered(generator, shots, items)

    def _answered(
        self, generator: Generator, shots: list[Any], items: list[Any]
    ) -> Iterator[CapabilityItem]:
        solved_before = [
            message
            for shot in shots
            for message in (
                Message("user", shot["question"].strip()),
                Message("assistant", str(shot["answer"])),
            )
        ]
        requests = [
            Request(str(index), (*solved_before, Message("user", item["question"].strip())))
            for index, item in enumerate(items)
        ]
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        answers = {
            done.id: done.text.strip().partition("\n")[0].strip()
            for done in generator.generate(requests, sampling)
        }
        pairs = [(answer, items[int(key)]) for key, answer in answers.items()]
        for (key, answer), ended in zip(answers.items(), self.scored(pairs), strict=True):
            solved = ended.how == "completed" and ended.stdout == "full"
            unscored = {} if ended.how == "completed" else {"unscored": ended.how}
            yield self.item(key, float(solved), answer=answer, **unscored)

    def scored(self, pairs: Sequence[tuple[str, Any]]) -> Iterator[sandbox.Ended]:
        """How each scoring of an answer to an item ended; it printed whether marks are full.

        Raises:
            DataError: An item's own answer cannot be scored.
            SandboxError: Nothing can be run in isolation here.
        """
        setup = SETUP.format((self.task, self.options))
        known = (str(pairs[0][1]["answer"]), pairs[0][1])
        packed = (base64.b64encode(pickle.dumps(pair)).decode() for pair in (known, *pairs))
        endings = sandbox.run_all([Program(SCORE, text) for text in packed], LIMITS, setup=setup)
        if (first := next(endings)).how != "completed":
            said = (first.stderr.strip() or first.how).splitlines()[-1]
            raise DataError(
                f"reasoning-gym task {self.task} cannot score its own answer: {said}",
                "Install the packages that requirements/ pins, or choose another task",
            )
        yield from endings

    def _chosen(
        self, generator: Generator, shots: list[Any], items: list[Any], choices: int
    ) -> Iterator[CapabilityItem]:
        answers = sorted({str(item["answer"]) for item in items})
        if len(answers) < choices:
            raise ConfigError(
                f"reasoning-gym task {self.task} has {len(answers)} different answers in"
                f" {len(items)} items, fewer than choices: {choices}",
                "Lower choices or raise count",
            )
        before = "".join(f"{ask(shot)} {shot['answer']}\n\n" for shot in shots)
        pairs = []
        for index, item in enumerate(items):
            right = str(item["answer"])
            others = [answer for answer in answers if answer != right]
            wrong = random.Random(f"{self.seed}/{index}").sample(others, choices - 1)
            pairs += [(before + ask(item), f" {answer}") for answer in (right, *wrong)]
        scores = [
            score / len(answer.encode())
            for (score, _), (_, answer) in zip(generator.loglikelihoods(pairs), pairs, strict=True)
        ]
        for index in range(len(items)):
            right_score, *wrong_scores = scores[index * choices : (index + 1) * choices]
            yield self.item(index, float(right_score > max(wrong_scores)))


def ask(item: Any) -> str:
    """A question as plain text, ready for its answer."""
    return f"Question: {item['question'].strip()}\nAnswer:"

"""Generated, verifiable reasoning tasks of reasoning-gym (Stojanovski et al., arXiv 2505.24760)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from sirl import packaged
from sirl.capability.base import Benchmark
from sirl.errors import ConfigError
from sirl.generation import Generator, Request, Sampling
from sirl.records import CapabilityItem, Message
from sirl.spec import Seed


class ReasoningGym(Benchmark):
    """One task, answered in chat or chosen by likelihood.

    Without `choices` the model answers greedily after `shots` solved examples as earlier turns;
    an item is solved when reasoning-gym gives the first line of the answer full marks. With
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

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        """See `Benchmark.run`.

        Raises:
            ConfigError: No such task or option, or too few different answers to choose from.
        """
        data = packaged.reasoning_gym(self.task, self.shots + self.count, self.seed, self.options)
        entries = list(data)
        shots, items = entries[: self.shots], entries[self.shots :]
        if self.choices:
            return self._chosen(generator, shots, items, self.choices)
        return self._answered(generator, shots, items, data.score_answer)

    def _answered(
        self, generator: Generator, shots: list[Any], items: list[Any], score_answer: Any
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
        for done in generator.generate(requests, Sampling(max_new_tokens=self.max_new_tokens)):
            answer = done.text.strip().partition("\n")[0].strip()
            marks = score_answer(answer, items[int(done.id)])
            yield self.item(done.id, float(marks >= 1), answer=answer)

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

"""What an attack is, and the static kind: a rewrite of the request, then one generation."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from sirl.generation import Generator, Request, Sampling
from sirl.records import Completion, Message, Prompt, Transcript
from sirl.spec import Spec


class Attack(Spec):
    """A published way to make a model comply. Subclasses fix `name` as a literal.

    Class attributes:
        attack_class: The family, for grouping in tables.
        paper: Where it was published.
        needs: What it needs beyond sampling from the target: `attacker`, `gradients`, `logprobs`.
        shard: Behaviours that run, and are saved, together: what a killed run loses at most.
    """

    name: str
    attack_class: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    shard: ClassVar[int] = 64

    @abstractmethod
    def run(
        self, behaviours: Iterable[Prompt], target: Generator, sampling: Sampling, *, seed: int
    ) -> Iterator[Transcript]:
        """Attacks each behaviour; streams one transcript each, in any order, ids stable over
        runs."""


class StaticAttack(Attack):
    """An attack that needs no answer from the target to write its prompt."""

    @abstractmethod
    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """The attacked chat for a request.

        A last turn of the assistant is a prefill: the answer goes on from there. `rng` is seeded by
        the behaviour's id, so base and trained are sent the same.
        """

    def run(
        self, behaviours: Iterable[Prompt], target: Generator, sampling: Sampling, *, seed: int
    ) -> Iterator[Transcript]:
        """See `Attack.run`. Memory is flat: only what the target has not answered yet is held."""
        waiting: dict[str, tuple[Prompt, tuple[Message, ...]]] = {}

        def requests() -> Iterator[Request]:
            for behaviour in behaviours:
                id = f"{self.name}:{behaviour.id}"
                messages = self.rewrite(behaviour.text, random.Random(f"{seed}/{id}"))
                waiting[id] = (behaviour, messages)
                yield request(id, messages)

        for done in target.generate(requests(), sampling, seed=seed):
            yield answered(self, *waiting.pop(done.id), done)
        for behaviour, messages in waiting.values():
            yield failed(self, behaviour, messages, "the backend gave no answer")


def request(id: str, messages: tuple[Message, ...]) -> Request:
    """The chat as a backend takes it: a last turn of the assistant becomes the prefill."""
    if messages[-1].role == "assistant":
        return Request(id, messages[:-1], prefill=messages[-1].content)
    return Request(id, messages)


def answered(
    attack: Attack, behaviour: Prompt, messages: tuple[Message, ...], done: Completion
) -> Transcript:
    """The transcript of an answered chat. The response holds no prefill; `messages` ends with
    it."""
    return Transcript(
        id=done.id,
        attack=attack.name,
        attack_class=attack.attack_class,
        behaviour_id=behaviour.id,
        kind=behaviour.kind,
        request=behaviour.text,
        messages=messages,
        response=done.text,
        response_tokens=done.response_tokens,
        entropy=round(done.entropy, 6) if done.entropies else None,
        finish=done.finish,
        note=done.note,
    )


def failed(
    attack: Attack, behaviour: Prompt, messages: tuple[Message, ...], note: str
) -> Transcript:
    """The transcript of a behaviour that could not be run. Judges leave it undetermined."""
    return Transcript(
        id=f"{attack.name}:{behaviour.id}",
        attack=attack.name,
        attack_class=attack.attack_class,
        behaviour_id=behaviour.id,
        kind=behaviour.kind,
        request=behaviour.text,
        messages=messages,
        response="",
        response_tokens=0,
        entropy=None,
        finish="error",
        note=note,
    )

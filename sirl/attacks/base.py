"""What an attack is, and the static kind: a rewrite of the request, then one ordinary generation."""

from __future__ import annotations

import random
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
    """

    attack_class: ClassVar[str]
    paper: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def run(
        self, behaviours: Iterable[Prompt], target: Generator, sampling: Sampling, *, seed: int
    ) -> Iterator[Transcript]:
        """Attacks each behaviour; streams one transcript each, in any order, ids stable over runs."""
        raise NotImplementedError


class StaticAttack(Attack):
    """An attack that needs no answer from the target to write its prompt."""

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """The attacked chat for a request. `rng` is seeded by the behaviour's id: equal for base and trained."""
        raise NotImplementedError

    def run(
        self, behaviours: Iterable[Prompt], target: Generator, sampling: Sampling, *, seed: int
    ) -> Iterator[Transcript]:
        raise NotImplementedError  # the owner of evaluation writes this


def transcript(
    attack: str, attack_class: str, behaviour: Prompt, request: Request, done: Completion
) -> Transcript:
    """The transcript of one answered request."""
    return Transcript(
        id=request.id,
        attack=attack,
        attack_class=attack_class,
        behaviour_id=behaviour.id,
        kind=behaviour.kind,
        request=behaviour.text,
        messages=request.messages,
        response=done.text,
        response_tokens=len(done.token_ids),
        entropy=done.entropy if done.entropies else None,
        finish=done.finish,
    )

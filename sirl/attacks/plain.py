"""The request as it is: the two measurements every attack is compared with."""

from __future__ import annotations

import random
from typing import ClassVar, Literal

from sirl.attacks.base import StaticAttack
from sirl.records import Message


class Plain(StaticAttack):
    """No attack: `direct` on harmful requests, `benign` on the ones over-refusal is measured on."""

    name: Literal["direct", "benign"]
    attack_class: ClassVar[str] = "none"
    paper: ClassVar[str] = ""

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        return (Message("user", request),)

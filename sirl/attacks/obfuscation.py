"""Letters that look like others.

Leetspeak: Wei et al., arXiv 2307.02483, appendix C.2. Confusables: Boucher et al., "Bad
Characters", arXiv 2106.09898, section IV.
"""

from __future__ import annotations

import random
from typing import ClassVar, Literal

from sirl.attacks.base import StaticAttack
from sirl.records import Message

LEET = str.maketrans("aeiostAEIOST", "431057431057")
LATIN = "acdeijopsxyABCEHIJKMOPSTX"
LOOKALIKES = "асԁеіјорѕхуАВСЕНІЈКМОРЅТХ"  # noqa: RUF001 - Cyrillic, letter by letter


class Leetspeak(StaticAttack):
    """The request with six letters replaced by the digits that look like them."""

    name: Literal["leetspeak"] = "leetspeak"
    attack_class: ClassVar[str] = "obfuscation"
    paper: ClassVar[str] = "arXiv 2307.02483"

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        return (Message("user", request.translate(LEET)),)


class Confusables(StaticAttack):
    """The request with Cyrillic letters for the Latin ones they look like."""

    name: Literal["confusables"] = "confusables"
    attack_class: ClassVar[str] = "obfuscation"
    paper: ClassVar[str] = "arXiv 2106.09898"

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        return (Message("user", request.translate(str.maketrans(LATIN, LOOKALIKES))),)

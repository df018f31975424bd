"""Role play: the model is to be a character who never says no.

AIM, DevMode v2 and DevMode with rant: collected by Wei et al., arXiv 2307.02483, appendix.
BetterDAN, AntiGPT and DAN 11: collected by Shen et al., "Do Anything Now", arXiv 2308.03825. The
texts are those of package pyrit; none of them is kept here.
"""

from __future__ import annotations

import random
from typing import ClassVar, Literal

from sirl.attacks import slots
from sirl.attacks.base import StaticAttack
from sirl.records import Message


class Persona(StaticAttack):
    """A persona's text with the request in its place.

    Class attributes:
        file: Name of the template in PyRIT.
    """

    attack_class: ClassVar[str] = "role play"
    file: ClassVar[str]

    def check(self) -> None:
        """See `Attack.check`.

        Raises:
            MissingPackageError: pyrit is not installed.
        """
        slots.packaged(self.file, f"attack {self.name}")

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        template = slots.packaged(self.file, f"attack {self.name}")
        return (Message("user", slots.fill(template, request)),)


class Aim(Persona):
    """A counsellor of no morals in a story."""

    name: Literal["aim"] = "aim"
    paper: ClassVar[str] = "arXiv 2307.02483"
    file: ClassVar[str] = "aim.yaml"


class DevModeV2(Persona):
    """A mode for developers in which the rules are said not to hold."""

    name: Literal["dev_mode_v2"] = "dev_mode_v2"
    paper: ClassVar[str] = "arXiv 2307.02483"
    file: ClassVar[str] = "dev_mode_2.yaml"


class DevModeRanti(Persona):
    """The mode for developers, who rants where it would refuse."""

    name: Literal["dev_mode_ranti"] = "dev_mode_ranti"
    paper: ClassVar[str] = "arXiv 2307.02483"
    file: ClassVar[str] = "dev_mode_ranti.yaml"


class BetterDan(Persona):
    """Two answers, one of them by a character without rules."""

    name: Literal["better_dan"] = "better_dan"
    paper: ClassVar[str] = "arXiv 2308.03825"
    file: ClassVar[str] = "better_dan.yaml"


class AntiGpt(Persona):
    """The opposite of what the model would answer."""

    name: Literal["anti_gpt"] = "anti_gpt"
    paper: ClassVar[str] = "arXiv 2308.03825"
    file: ClassVar[str] = "anti_gpt.yaml"


class Dan11(Persona):
    """A character who can do anything now."""

    name: Literal["dan_11"] = "dan_11"
    paper: ClassVar[str] = "arXiv 2308.03825"
    file: ClassVar[str] = "dan_11.yaml"


PERSONAS: tuple[type[Persona], ...] = (Aim, DevModeV2, DevModeRanti, BetterDan, AntiGpt, Dan11)

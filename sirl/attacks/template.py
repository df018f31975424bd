"""The user's own templates, out of a file: whatever jailbreak collections hold (Shen et al., "Do
Anything Now", arXiv 2308.03825, gathered 1,405 of them)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar, Literal

from sirl.attacks import slots
from sirl.attacks.base import Need, StaticAttack
from sirl.records import Message


class TemplateFile(StaticAttack):
    """One of the file's templates for each behaviour, drawn by the behaviour's id."""

    name: Literal["template"] = "template"
    attack_class: ClassVar[str] = "template"
    paper: ClassVar[str] = "arXiv 2308.03825"
    needs: ClassVar[tuple[Need, ...]] = ("file",)
    path: Path
    """JSONL, relative to params.yaml: a line is `{"template": "... {request} ..."}`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Attack.files`."""
        return (self.path,)

    def check(self) -> None:
        """See `Attack.check`."""
        slots.read(self.path)

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        return (Message("user", slots.fill(rng.choice(slots.read(self.path)), request)),)

"""Transfer (Zou et al., arXiv 2307.15043, section 3.2): prompts that broke another model, replayed.

They were not made for this target, so they are counted apart from the live attacks. JailbreakBench
(Chao et al., arXiv 2404.01318) publishes such prompts for several attacks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sirl import records
from sirl.attacks.base import Need, StaticAttack
from sirl.errors import DataError
from sirl.prompts.clean import normalised
from sirl.records import Message, Prompt


@dataclass(frozen=True)
class AttackPrompt:
    """One line of a file: the request, and a prompt that was made to bring it about."""

    request: str
    prompt: str


class Replay(StaticAttack):
    """The prompt that a file holds for each request; one of them, drawn by the behaviour's id.

    Behaviours that the files do not name are left out.
    """

    name: Literal["replay"] = "replay"
    attack_class: ClassVar[str] = "transfer"
    paper: ClassVar[str] = "arXiv 2307.15043"
    needs: ClassVar[tuple[Need, ...]] = ("file",)
    paths: Annotated[tuple[Path, ...], Field(min_length=1)]
    """JSONL, relative to params.yaml: a line is `{"request": "...", "prompt": "..."}`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """See `Attack.files`."""
        return self.paths

    def check(self) -> None:
        """See `Attack.check`."""
        read(self.paths)

    def covers(self, behaviour: Prompt) -> bool:
        """See `Attack.covers`."""
        return _key(behaviour.text) in read(self.paths)

    def rewrite(self, request: str, rng: random.Random) -> tuple[Message, ...]:
        """See `StaticAttack.rewrite`."""
        return (Message("user", rng.choice(read(self.paths)[_key(request)])),)


@lru_cache(maxsize=1)
def read(paths: tuple[Path, ...]) -> dict[str, list[str]]:
    """The prompts of files by the request they were made for, whatever its case and white space.

    Raises:
        DataError: A file is missing, empty or malformed: file, line and reason are named.
    """
    prompts: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"attack file {path} does not exist", "Paths are relative to params.yaml"
            )
        rows = list(records.read(path, AttackPrompt))
        if not rows:
            raise DataError(f"{path} holds no attack prompt")
        for row in rows:
            prompts[_key(row.request)].append(row.prompt)
    return dict(prompts)


def _key(request: str) -> str:
    return " ".join(normalised(request).casefold().split())

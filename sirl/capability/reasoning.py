"""Generated, verifiable reasoning tasks of reasoning-gym."""

from __future__ import annotations

from typing import Literal

from sirl.spec import Spec


class ReasoningGym(Spec):
    name: Literal["reasoning_gym"] = "reasoning_gym"
    task: str

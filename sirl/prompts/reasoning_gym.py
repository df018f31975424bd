"""Generated puzzles of reasoning-gym (Stojanovski et al., arXiv 2505.24760) as benign requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from sirl import packaged
from sirl.prompts.base import Source
from sirl.spec import Seed


class ReasoningGym(Source):
    """`count` puzzles of each task; the key names the task, the seed and the place."""

    package: ClassVar[str | None] = "reasoning-gym"

    name: Literal["reasoning_gym"] = "reasoning_gym"
    kind: Literal["benign"] = "benign"
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "chain_sum",
        "gsm_symbolic",
        "leg_counting",
        "letter_counting",
        "number_sorting",
        "spell_backward",
    )
    count: PositiveInt = 50
    seed: Seed = 0

    def texts(self) -> Iterator[tuple[str, str]]:
        for task in self.tasks:
            for index, item in enumerate(packaged.reasoning_gym(task, self.count, self.seed)):
                yield f"{task}-{self.seed}-{index}", item["question"]

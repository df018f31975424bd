"""What a benchmark is: a frozen spec that asks a model and scores each answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from sirl.generation import Generator
from sirl.records import CapabilityItem
from sirl.spec import Spec


class Benchmark(Spec):
    """A fixed set of items: the same for every model, run and seed of the pipeline, so that models
    are compared item by item.

    Class attributes:
        metric: What a score of 1 means.
    """

    metric: ClassVar[str]

    name: str

    @property
    def label(self) -> str:
        """Its name in tables and in item ids, unique in a run."""
        return self.name

    @property
    def runs_answers(self) -> bool:
        """Whether scoring runs what the model writes, which takes a sandbox (`sandbox.check`)."""
        return False

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        """Yields one scored item each, in any order, ids stable over runs.

        Raises:
            MissingPackageError: The package that holds the data is not installed.
        """
        raise NotImplementedError

    def item(self, key: str | int, score: float, **detail: object) -> CapabilityItem:
        """The row of one scored item."""
        return CapabilityItem(f"{self.label}/{key}", self.label, score, detail)

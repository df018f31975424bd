"""Best of N by entropy: SIRL's signal spent at inference, with no training.

A model folder that is to be sampled so says it in a file beside the weights. Whoever opens a
folder for generation honours the file, as `TransformersBackend` does, or refuses the folder: a
backend that ignored it would measure another model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, ValidationError

from sirl import records
from sirl.errors import ModelError
from sirl.generation import Generator, Request, Sampling
from sirl.records import Completion
from sirl.spec import Spec

FILE = "best_of_n.json"


class _File(Spec):
    n: PositiveInt


def write(folder: Path, n: int) -> None:
    """Says that the model in a folder answers with the best of `n` samples."""
    records.write_json(folder / FILE, _File(n=n).model_dump())


def read(folder: Path) -> int | None:
    """Of how many samples the model in a folder takes the best; None where it is sampled plainly.

    Raises:
        ModelError: The file says nothing that we understand.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return _File.model_validate(records.read_json(path)).n
    except ValidationError:
        raise ModelError(f'{path} is not of the form {{"n": 4}}', "Rebuild it: dvc repro") from None


class BestOfN:
    """A `Generator` that samples `n` responses and answers with the one of lowest entropy.

    Sampling is at temperature 1, whatever is asked for; the rest of the sampling holds.

    Args:
        generator: Who samples; it must record entropies.
        n: Samples a request.
    """

    def __init__(self, generator: Generator, n: int) -> None:
        self.generator = generator
        self.n = n

    @property
    def tokenizer(self) -> Any:
        """That of the model."""
        return self.generator.tokenizer  # type: ignore[attr-defined]

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        """See `Generator.generate`. Of equally sure samples the first answers."""
        tries = (
            replace(request, id=f"{request.id}#{k}") for request in requests for k in range(self.n)
        )
        drawn = sampling.model_copy(update={"temperature": 1.0})
        waiting: dict[str, list[Completion]] = {}
        for done in self.generator.generate(tries, drawn, seed=seed):
            id, _, _ = done.id.rpartition("#")
            samples = waiting.setdefault(id, [])
            samples.append(done)
            if len(samples) == self.n:
                samples = sorted(waiting.pop(id), key=lambda sample: int(sample.id[len(id) + 1 :]))
                yield replace(min(samples, key=lambda sample: sample.entropy), id=id)

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """See `Generator.loglikelihoods`: those of the model itself."""
        return self.generator.loglikelihoods(pairs)

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """See `Generator.rolling`: as `loglikelihoods`."""
        return self.generator.rolling(texts)

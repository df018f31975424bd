from __future__ import annotations

from pathlib import Path

import pytest

from sirl.errors import DataError, ModelError
from sirl.generation import Request, Sampling, best_of_n
from sirl.generation.best_of_n import BestOfN
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Message

REQUESTS = [Request(f"r#{i}", (Message("user", "hello " * (1 + i % 3)),)) for i in range(5)]


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> TransformersGenerator:
    return TransformersGenerator.load(tiny_model, device="cpu", dtype="float32", batch_tokens=400)


def test_the_surest_of_the_samples_it_draws_answers(generator: TransformersGenerator) -> None:
    greedy = Sampling(max_new_tokens=6, temperature=0)
    best = {done.id: done for done in BestOfN(generator, 3).generate(REQUESTS, greedy, seed=4)}
    assert sorted(best) == sorted(request.id for request in REQUESTS)
    for request in REQUESTS:
        tries = [Request(f"{request.id}#{k}", request.messages) for k in range(3)]
        drawn = list(generator.generate(tries, Sampling(max_new_tokens=6, temperature=1), seed=4))
        assert len({sample.token_ids for sample in drawn}) == 3
        surest = min(drawn, key=lambda sample: sample.entropy)
        assert best[request.id].token_ids == surest.token_ids


def test_the_seed_decides(generator: TransformersGenerator) -> None:
    def texts(seed: int) -> dict[str, str]:
        answers = BestOfN(generator, 2).generate(REQUESTS, Sampling(max_new_tokens=4), seed=seed)
        return {done.id: done.text for done in answers}

    assert texts(1) == texts(1) != texts(2)


def test_likelihoods_are_the_models_own(generator: TransformersGenerator) -> None:
    pairs = [("one plus one is", " two"), ("one plus one is", " three")]
    assert BestOfN(generator, 4).loglikelihoods(pairs) == generator.loglikelihoods(pairs)
    assert BestOfN(generator, 4).tokenizer is generator.tokenizer


def test_a_folder_says_it(tmp_path: Path) -> None:
    assert best_of_n.read(tmp_path) is None
    best_of_n.write(tmp_path, 6)
    assert best_of_n.read(tmp_path) == 6


@pytest.mark.parametrize("text", ["{}", '{"n": 0}', '{"n": 2, "m": 1}', "[]"])
def test_a_file_that_says_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / best_of_n.FILE).write_text(text)
    with pytest.raises(ModelError, match=r"best_of_n.json is not of the form"):
        best_of_n.read(tmp_path)
    (tmp_path / best_of_n.FILE).write_text("{")
    with pytest.raises(DataError):
        best_of_n.read(tmp_path)

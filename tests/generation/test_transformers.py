from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sirl.entropy import token_entropy
from sirl.generation import Request, Sampling
from sirl.generation.transformers import EntropySampler, TransformersGenerator, uniforms
from sirl.records import Completion, Message


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> TransformersGenerator:
    return TransformersGenerator.load(tiny_model, device="cpu", dtype="float32", batch_tokens=2048)


def requests(count: int = 5) -> list[Request]:
    return [Request(f"r{i}", (Message("user", "tree " * (i + 1)),)) for i in range(count)]


def by_id(completions: Iterator[Completion]) -> dict[str, Completion]:
    return {completion.id: completion for completion in completions}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_recorded_entropy_is_the_teacher_forced_one(
    generator: TransformersGenerator, temperature: float
) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=temperature)
    done = by_id(generator.generate(requests(), sampling, seed=3))
    for request in requests():
        prompt, answer = generator.encode(request), list(done[request.id].token_ids)
        with torch.no_grad():
            logits = generator.model(torch.tensor([prompt + answer])).logits[0]
        forced = token_entropy(logits[len(prompt) - 1 : -1])
        assert done[request.id].entropies == pytest.approx(forced.tolist(), abs=1e-3)


def test_a_response_does_not_depend_on_its_batch(generator: TransformersGenerator) -> None:
    sampling = Sampling(max_new_tokens=10, temperature=1.0)
    together = by_id(generator.generate(requests(), sampling, seed=1))
    alone = by_id(c for r in requests() for c in generator.generate([r], sampling, seed=1))
    assert {k: v.token_ids for k, v in together.items()} == {
        k: v.token_ids for k, v in alone.items()
    }


def test_greedy_agrees_with_plain_generate(generator: TransformersGenerator) -> None:
    (done,) = generator.generate(requests(1), Sampling(max_new_tokens=8))
    ids = torch.tensor([generator.encode(requests(1)[0])])
    plain = generator.model.generate(ids, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
    assert list(done.token_ids) == plain[0, ids.shape[1] :].tolist()


def test_another_seed_gives_another_response(generator: TransformersGenerator) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    first, second = (by_id(generator.generate(requests(), sampling, seed=s)) for s in (0, 1))
    assert first != second


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    u = torch.rand(20000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = EntropySampler(u, Sampling(temperature=2.0))
    chosen = sampler(torch.zeros(1, 1).long(), logits.expand(20000, -1)).argmax(-1)  # type: ignore[arg-type]
    share = torch.bincount(chosen, minlength=4) / 20000
    torch.testing.assert_close(share, (logits[0] / 2).softmax(-1), atol=0.012, rtol=0)


def test_uniforms_at_the_edge_never_choose_an_impossible_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]] * 2)
    edge = torch.tensor([[0.0], [1.0 - 2**-53]], dtype=torch.float64)
    sampler = EntropySampler(edge, Sampling(temperature=1.0))
    assert sampler(torch.zeros(2, 1).long(), logits).argmax(-1).tolist() == [1, 2]  # type: ignore[arg-type]


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(3000, -1)
    u = torch.rand(3000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = EntropySampler(u, Sampling(temperature=1.0, top_p=0.6))
    chosen = sampler(torch.zeros(1, 1).long(), logits).argmax(-1)  # type: ignore[arg-type]
    assert set(chosen.tolist()) == {0, 1}
    assert sampler.entropies[0][0].item() == pytest.approx(1.0297, abs=1e-3)  # the raw entropy


@pytest.mark.parametrize(("top_p", "kept"), [(1.0, {0, 1}), (0.6, {0})])
def test_top_k_comes_before_top_p(top_p: float, kept: set[int]) -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(3000, -1)
    u = torch.rand(3000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampler = EntropySampler(u, Sampling(temperature=1.0, top_k=2, top_p=top_p))
    chosen = sampler(torch.zeros(1, 1).long(), logits).argmax(-1)  # type: ignore[arg-type]
    assert set(chosen.tolist()) == kept  # 0.5 of the 0.8 that are left is more than 0.6 of them
    if top_p == 1:
        assert float((chosen == 0).float().mean()) == pytest.approx(0.625, abs=0.03)


def test_top_k_of_more_than_there_are_changes_nothing() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    u = torch.rand(50, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ids = torch.zeros(1, 1).long()
    chosen = [
        EntropySampler(u, Sampling(temperature=1.0, top_k=k))(ids, logits).argmax(-1)  # type: ignore[arg-type]
        for k in (7, 99)
    ]
    assert torch.equal(*chosen)


def test_uniforms_belong_to_request_and_seed() -> None:
    assert torch.equal(uniforms("a", 1, 4), uniforms("a", 1, 9)[:4])
    assert not torch.equal(uniforms("a", 1, 4), uniforms("b", 1, 4))
    assert not torch.equal(uniforms("a", 1, 4), uniforms("a", 2, 4))


def test_prefill_is_where_the_answer_starts(generator: TransformersGenerator) -> None:
    plain, filled = (Request("r", (Message("user", "hi"),), prefill=p) for p in ("", "Sure"))
    assert generator.encode(filled)[: len(generator.encode(plain))] == generator.encode(plain)
    assert generator.tokenizer.decode(generator.encode(filled)).endswith("assistant\nSure")


def test_loglikelihood_by_hand(generator: TransformersGenerator) -> None:
    pairs = [("the cat", " sat"), ("a much longer context here:", "x"), ("", "ab")]
    together = generator.loglikelihoods(pairs)
    for (context, continuation), (value, _) in zip(pairs, together, strict=True):
        ids = generator.tokenizer(context + continuation)["input_ids"]
        tail = len(continuation)  # bytes are tokens here
        ids = ids if context else [generator.tokenizer.eos_token_id, *ids]
        with torch.no_grad():
            log_p = generator.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        hand = sum(log_p[len(ids) - tail + k - 1, ids[len(ids) - tail + k]] for k in range(tail))
        assert value == pytest.approx(float(hand), abs=1e-3)


def test_batches_stay_under_the_bound(generator: TransformersGenerator) -> None:
    encoded = [([0] * n, Request(str(n), ())) for n in range(1, 60)]
    small = TransformersGenerator(generator.model, generator.tokenizer, batch_tokens=200)
    batches = list(small._batches(encoded, 10))
    assert sum(len(batch) for batch in batches) == 59
    assert all(len(b) == 1 or len(b) * (len(b[-1][0]) + 10) <= 200 for b in batches)


def test_a_chat_beyond_the_context_window_is_marked_and_the_others_go_on(
    generator: TransformersGenerator,
) -> None:
    long = Request("long", (Message("user", "x" * 9000),))
    done = by_id(generator.generate([*requests(2), long], Sampling(max_new_tokens=4)))
    assert set(done) == {"r0", "r1", "long"}
    length = len(generator.encode(long))
    assert done["long"].finish == "error"
    assert done["long"].note == f"context window exceeded: {length} tokens, there is room for 8188"
    assert done["r1"].finish != "error"

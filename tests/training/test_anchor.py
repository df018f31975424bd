from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from sirl.generation.transformers import TransformersGenerator
from sirl.models import load_model
from sirl.records import Prompt
from sirl.training import anchor, scoring
from sirl.training.anchor import AnchorRow


def test_divergence_by_hand() -> None:
    # KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln 2/3
    reference = torch.zeros(2, 2)
    policy = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    hand = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    one_answer, two_answers = torch.tensor([2]), torch.tensor([1, 1])
    assert anchor.divergence(reference, policy, one_answer).item() == pytest.approx(hand / 2)
    assert anchor.divergence(reference, policy, two_answers).item() == pytest.approx(hand)


def test_divergence_of_equals_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0))
    policy = logits.clone().requires_grad_()
    value = anchor.divergence(logits, policy, torch.tensor([1, 2]))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-7)
    assert policy.grad is not None and policy.grad.abs().max() < 1e-6


def test_packed_rows_follow_each_other_and_know_their_answers() -> None:
    rows = [AnchorRow((5, 6), (7,)), AnchorRow((8,), (9, 10, 11))]
    batch = anchor.pack(rows, torch.device("cpu"))
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    # The token before each of 7, 9, 10, 11.
    assert batch.inputs["logits_to_keep"].tolist() == [1, 3, 4, 5]
    assert batch.lengths.tolist() == [1, 3]


@pytest.mark.parametrize("layout", [anchor.pack, anchor.pad])
def test_rows_lie_on_the_device(layout: Callable[..., anchor.Batch]) -> None:
    batch = layout([AnchorRow((5, 6), (7,))], torch.device("meta"))
    laid = [*batch.inputs.values(), batch.lengths, batch.predicting]
    found = {value.device.type for value in laid if isinstance(value, torch.Tensor)}
    assert found == {"meta"}


class Counting:
    """A model whose logits at a place are one-hot of how many tokens of 5 it has seen; a `leak`
    looks beyond its row."""

    training = True

    def __init__(self, leak: bool) -> None:
        self.leak, self.read = leak, list[list[int]]()

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.zeros(1)

    def train(self, mode: bool) -> None:
        self.training = mode

    def eval(self) -> None:
        self.training = False

    def __call__(self, input_ids: Any, position_ids: Any, logits_to_keep: Any, **_: Any) -> Any:
        assert not self.training
        (ids,), (places,) = input_ids.tolist(), position_ids.tolist()
        self.read.append(ids)
        starts = [0 if self.leak else place - step for place, step in enumerate(places)]
        seen = [ids[start : place + 1].count(5) for place, start in enumerate(starts)]
        logits = torch.nn.functional.one_hot(torch.tensor(seen), 20).float()
        return SimpleNamespace(logits=logits[None, logits_to_keep])


@pytest.mark.parametrize("leak", [False, True])
def test_the_last_row_is_read_twice_after_other_words_of_equal_number(leak: bool) -> None:
    model = Counting(leak)
    rows = [AnchorRow((4, 5), (6, 5, 7)), AnchorRow((9, 9), (9,)), AnchorRow((5, 8), (5,))]
    assert anchor.packable(model, rows) != leak
    assert model.read == [[4, 5, 6, 5, 7, 5, 8, 5], [4, 4, 4, 4, 4, 5, 8, 5]]
    assert model.training


def test_packed_rows_do_not_see_each_other(tiny_model: Path) -> None:
    model: Any = load_model(tiny_model, "float32").eval()
    rows = [AnchorRow((5, 6), (7,)), AnchorRow((8,), (9, 10, 11)), AnchorRow((5, 6), (7, 12))]
    with torch.no_grad():
        packed = anchor.predicting_logits(model, anchor.pack(rows, torch.device("cpu")))
        alone = [
            model(torch.tensor([row.prompt_ids + row.answer_ids])).logits[
                0, len(row.prompt_ids) - 1 : -1
            ]
            for row in rows
        ]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_predicting_logits_are_those_before_each_answer_token(tiny_model: Path) -> None:
    generator = TransformersGenerator.load(
        tiny_model, device="cpu", dtype="float32", batch_tokens=512
    )
    prompts = [Prompt(f"b/{i}", "tell me " * (i + 1), "b", "benign") for i in range(3)]
    rows = anchor.answer(prompts, generator, max_new_tokens=5)
    batch = anchor.pack(rows, torch.device("cpu"))
    with torch.no_grad():
        logits = anchor.predicting_logits(generator.model, batch)
    # Greedy answers: the likeliest token at each predicting position is the answer's.
    assert logits.argmax(-1).tolist() == [token for row in rows for token in row.answer_ids]


SIZE: dict[str, Any] = {
    **{"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
}
GROUPED = {
    **SIZE,
    **{"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128},
}
EXPERTS = {"head_dim": 8, "num_experts_per_tok": 1}
LINEAR = {
    **{"num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
FAMILIES: dict[str, tuple[bool, dict[str, Any]]] = {
    "Llama": (True, GROUPED),
    "Qwen2": (True, GROUPED),
    "Mistral": (True, {**GROUPED, "sliding_window": 4}),
    "GPT2": (True, {**SIZE, "n_positions": 128}),
    "GPTNeoX": (True, {**SIZE, "intermediate_size": 64}),
    "GptOss": (False, {**GROUPED, **EXPERTS, "num_local_experts": 2}),
    "OPT": (False, {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "Falcon": (False, SIZE),
    "Bloom": (False, SIZE),
    "Lfm2": (False, {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    "Qwen3Next": (
        False,
        {**GROUPED, **EXPERTS, **LINEAR, "layer_types": ["linear_attention", "full_attention"]},
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[bool, Any]:
    packable, size = FAMILIES[request.param]
    config = getattr(transformers, f"{request.param}Config")(**size)
    torch.manual_seed(0)
    return packable, transformers.AutoModelForCausalLM.from_config(config).eval()


ROWS = [
    AnchorRow(tuple(range(2, 7)), (7, 8, 9)),
    AnchorRow(tuple(range(20, 40)), (41, 9)),
    AnchorRow((11, 12), (13, 14, 15, 16)),
]


@torch.no_grad()
def one_by_one(model: Any) -> torch.Tensor:
    """Log-probabilities (N, V) that predict the answers, each row read alone."""
    logits = [
        model(torch.tensor([row.prompt_ids + row.answer_ids])).logits[
            0, len(row.prompt_ids) - 1 : -1
        ]
        for row in ROWS
    ]
    return torch.cat(logits).log_softmax(-1)


def test_a_model_whose_packed_rows_see_each_other_is_told(family: tuple[bool, Any]) -> None:
    packable, model = family
    assert anchor.packable(model.train(), ROWS) == packable
    assert model.training
    model.eval()
    with torch.no_grad():
        packed = anchor.predicting_logits(model, anchor.pack(ROWS, torch.device("cpu")))
    apart = float((packed.log_softmax(-1) - one_by_one(model)).abs().max())
    assert (apart < 2e-6) == packable


def test_padded_rows_are_read_as_alone(family: tuple[bool, Any]) -> None:
    _, model = family
    batch = anchor.pad(ROWS, torch.device("cpu"))
    with torch.no_grad():
        padded = anchor.predicting_logits(model, batch).log_softmax(-1)
    torch.testing.assert_close(padded, one_by_one(model), atol=1e-5, rtol=1e-4)
    assert batch.lengths.tolist() == [3, 2, 4]


@pytest.mark.parametrize("share_prompts", [False, True])
def test_padded_prompts_are_scored_as_alone(family: tuple[bool, Any], share_prompts: bool) -> None:
    _, model = family
    width = max(len(row.prompt_ids) for row in ROWS)
    length = max(len(row.answer_ids) for row in ROWS)
    ids, mask = [], []
    for row in ROWS:
        gaps = width - len(row.prompt_ids), length - len(row.answer_ids)
        ids.append([1] * gaps[0] + [*row.prompt_ids, *row.answer_ids] + [1] * gaps[1])
        mask.append([0] * gaps[0] + [1] * (width + length - sum(gaps)) + [0] * gaps[1])
    with torch.no_grad():
        logps, _ = scoring.score(
            model,
            torch.tensor(ids),
            torch.tensor(mask),
            length,
            temperature=1.0,
            with_entropy=False,
            share_prompts=share_prompts,
        )
    told = [logps[index, : len(row.answer_ids)] for index, row in enumerate(ROWS)]
    answers = torch.tensor([token for row in ROWS for token in row.answer_ids])
    alone = one_by_one(model).gather(1, answers.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(torch.cat(told), alone, atol=1e-5, rtol=1e-4)

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sirl.generation.transformers import TransformersGenerator
from sirl.models import load_model
from sirl.records import Prompt
from sirl.training import anchor
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
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert batch.predicting.tolist() == [1, 3, 4, 5]  # the token before each of 7, 9, 10, 11
    assert batch.lengths.tolist() == [1, 3]


def test_packed_rows_lie_on_the_device() -> None:
    batch = anchor.pack([AnchorRow((5, 6), (7,))], torch.device("meta"))
    assert {value.device.type for value in vars(batch).values()} == {"meta"}


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

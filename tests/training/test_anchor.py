from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from sirl.generation.transformers import TransformersGenerator
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


def test_collate_masks_the_answer_alone() -> None:
    rows = [AnchorRow((5, 6), (7,)), AnchorRow((8,), (9, 10, 11))]
    batch = anchor.collate(rows, pad_id=0, device=torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[0, 5, 6, 7], [8, 9, 10, 11]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert batch["answer_mask"].tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]


def test_predicting_logits_are_those_before_each_answer_token(tiny_model: Path) -> None:
    generator = TransformersGenerator.load(
        tiny_model, device="cpu", dtype="float32", batch_tokens=512
    )
    prompts = [Prompt(f"b/{i}", "tell me " * (i + 1), "b", "benign") for i in range(3)]
    rows = anchor.answer(prompts, generator, max_new_tokens=5)
    batch = anchor.collate(rows, pad_id=1, device=torch.device("cpu"))
    with torch.no_grad():
        logits = anchor.predicting_logits(generator.model, batch)
    # Greedy answers: the likeliest token at each predicting position is the answer's.
    assert logits.argmax(-1).tolist() == [token for row in rows for token in row.answer_ids]

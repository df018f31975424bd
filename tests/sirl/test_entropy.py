from __future__ import annotations

import math

import pytest
import torch

from sirl import entropy


def test_uniform_is_ln_v() -> None:
    assert entropy.token_entropy(torch.zeros(3, 49)).tolist() == pytest.approx([math.log(49)] * 3)


def test_one_hot_is_zero_even_with_impossible_tokens() -> None:
    logits = torch.full((1, 10), -torch.inf)
    logits[0, 3] = 5.0
    assert entropy.token_entropy(logits).item() == 0.0


def test_two_tokens_by_hand() -> None:
    # p = (1/4, 3/4): H = 1/4 ln 4 + 3/4 ln 4/3
    logits = torch.tensor([[0.0, math.log(3)]])
    hand = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert entropy.token_entropy(logits).item() == pytest.approx(hand, abs=1e-6)


def test_shift_changes_nothing() -> None:
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        entropy.token_entropy(logits + 1e3), entropy.token_entropy(logits), atol=1e-3, rtol=0
    )


def test_temperature_divides_the_logits() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        entropy.token_entropy(logits, temperature=2.0), entropy.token_entropy(logits / 2)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_float64(dtype: torch.dtype) -> None:
    logits = (8 * torch.randn(16, 5000, generator=torch.Generator().manual_seed(2))).to(dtype)
    p = logits.double().softmax(-1)
    reference = torch.special.entr(p).sum(-1)
    torch.testing.assert_close(
        entropy.token_entropy(logits).double(), reference, atol=1e-5, rtol=1e-5
    )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(2, 7, 50, generator=torch.Generator().manual_seed(3))
    whole = entropy.token_entropy(logits)
    monkeypatch.setattr(entropy, "CHUNK_ELEMENTS", 120)
    assert torch.equal(entropy.token_entropy(logits), whole)
    assert whole.shape == (2, 7)


def test_response_entropy_ignores_padding_whatever_it_holds() -> None:
    values = torch.tensor([[1.0, 3.0, float("nan")], [2.0, float("inf"), 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert entropy.response_entropy(values, mask).tolist() == [2.0, 2.0]


def test_response_without_tokens_has_no_entropy() -> None:
    assert entropy.response_entropy(torch.ones(1, 2), torch.zeros(1, 2)).isnan().all()

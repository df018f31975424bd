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


@pytest.mark.parametrize(
    ("shape", "elements", "rows"),
    [
        ((2, 7, 50), 120, [2] * 7),
        ((14, 5), 20, [4, 4, 4, 2]),
        ((3, 50), 20, [1, 1, 1]),  # not even one row fits
        ((3, 50), 1 << 24, [3]),
    ],
)
def test_chunks_are_bounded_and_change_nothing(
    shape: tuple[int, ...], elements: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    p = logits.softmax(-1)
    read: list[int] = []
    plain = entropy.entropy
    monkeypatch.setattr(entropy, "entropy", lambda p, log_p: read.append(len(p)) or plain(p, log_p))
    monkeypatch.setattr(entropy, "CHUNK_ELEMENTS", elements)
    found = entropy.token_entropy(logits)
    torch.testing.assert_close(found, -(p * p.log()).sum(-1))
    assert read == rows


def test_no_more_than_64_mib_is_upcast_at_a_time() -> None:
    assert 4 * entropy.CHUNK_ELEMENTS == 64 * 2**20


def test_the_result_is_float32_where_the_logits_are() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        found = entropy.token_entropy(torch.zeros(2, 3, dtype=torch.bfloat16))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert entropy.token_entropy(torch.zeros(2, 3, device="meta")).device.type == "meta"


def test_entropy_of_distributions_of_any_shape() -> None:
    p = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])  # (1, 2, 3)
    assert entropy.entropy(p, p.log()).tolist() == [[pytest.approx(math.log(2)), 0.0]]


def test_response_entropy_ignores_padding_whatever_it_holds() -> None:
    values = torch.tensor([[1.0, 3.0, float("nan")], [2.0, float("inf"), 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert entropy.response_entropy(values, mask).tolist() == [2.0, 2.0]


def test_response_without_tokens_has_no_entropy() -> None:
    assert entropy.response_entropy(torch.ones(1, 2), torch.zeros(1, 2)).isnan().all()

from __future__ import annotations

import pytest

from sirl.training import rewards


def test_reward_is_the_negative_entropy() -> None:
    assert rewards.negative_entropy(entropy=[0.5, 2.0], completions=["a", "b"]) == [-0.5, -2.0]


def test_a_reward_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        rewards.negative_entropy(entropy=[0.5, float("nan")])


def test_advantages_by_hand() -> None:
    # mean 2, std sqrt(((-1)^2 + 0 + 0 + 1) / 3) = sqrt(2/3)
    std = (2 / 3) ** 0.5 + 1e-4
    assert rewards.advantages([1, 2, 2, 3], 4) == pytest.approx([-1 / std, 0, 0, 1 / std])


def test_equal_rewards_carry_nothing() -> None:
    assert rewards.advantages([-0.7, -0.7, 1.0, 3.0], 2)[:2] == [0.0, 0.0]

from __future__ import annotations

import pytest

from sirl.training import rewards


def test_reward_is_the_negative_entropy() -> None:
    paper = rewards.negative_entropy()
    assert paper(entropy=[0.5, 2.0], completions=["a", "b"]) == [-0.5, -2.0]


def test_below_the_floor_all_responses_are_worth_the_same() -> None:
    assert rewards.negative_entropy(floor=1.0)(entropy=[0.2, 0.9, 2.0]) == [-1.0, -1.0, -2.0]


def test_the_ablations_by_hand() -> None:
    assert rewards.entropy(entropy=[0.5, 2.0]) == [0.5, 2.0]
    assert rewards.minimum_perplexity(logprob=[-0.25, -3.0]) == [-0.25, -3.0]
    drawn = rewards.random_reward(request=["0/0", "0/1", "0/0"])
    assert drawn[0] == drawn[2] != drawn[1] and all(0 <= value < 1 for value in drawn)


def test_advantages_by_hand() -> None:
    # mean 2, std sqrt(((-1)^2 + 0 + 0 + 1) / 3) = sqrt(2/3)
    std = (2 / 3) ** 0.5 + 1e-4
    assert rewards.advantages([1, 2, 2, 3], 4) == pytest.approx([-1 / std, 0, 0, 1 / std])


def test_equal_rewards_carry_nothing() -> None:
    assert rewards.advantages([-0.7, -0.7, 1.0, 3.0], 2) == [
        *(0.0, 0.0),
        *rewards.advantages([1.0, 3.0], 2),
    ]

"""Rewards with TRL's signature, and the advantage TRL makes of them.

A reward reads what the rollout recorded while it sampled: `entropy` and `logprob`, (B,) response
means in nats, and `request`, (B,) ids that fix what was sampled.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

Reward = Callable[..., list[float]]
"""TRL's reward contract: columns of the batch by name in, (B,) rewards out."""

STD_FLOOR = 1e-4
"""TRL adds it to the group's standard deviation, so that a group of equal rewards yields zero
advantage."""


def negative_entropy(floor: float = 0.0) -> Reward:
    """r = -max(H, floor): the negative response entropy, nats (arXiv 2510.01088, eq. 4).

    Args:
        floor: Nats below which a response is sure enough. 0 is the paper. Above it, a group that is
            all sure refusals has equal rewards and so no gradient: what is learnt already is not
            pushed on into one stock sentence and into refusing everything.
    """

    def reward(*, entropy: Sequence[float], **_: Any) -> list[float]:
        return [-max(value, floor) for value in entropy]

    return reward


def entropy(*, entropy: Sequence[float], **_: Any) -> list[float]:
    """r = H: the paper's reward negated, which rewards being unsure (ablation)."""
    return list(entropy)


def minimum_perplexity(*, logprob: Sequence[float], **_: Any) -> list[float]:
    """r = mean log-probability of the sampled tokens, nats: least for the highest perplexity.

    It sees the tokens that were drawn, where -H sees the whole distribution (ablation).
    """
    return list(logprob)


def random_reward(*, request: Sequence[str], **_: Any) -> list[float]:
    """r uniform in [0, 1), fixed by the request: what any reward would do by chance (ablation)."""
    return [random.Random(id).random() for id in request]


def advantages(rewards: Sequence[float], group: int) -> list[float]:
    """Group-relative advantages, (r - mean) / (std + 1e-4), std with Bessel's correction.

    A group whose rewards are all equal has zero advantages: it contributes no gradient from the
    reward.

    Args:
        rewards: (P * group,), the responses to one prompt next to each other.
        group: Responses to one prompt, at least 2.
    """
    result: list[float] = []
    for start in range(0, len(rewards), group):
        members = rewards[start : start + group]
        mean = sum(members) / group
        std = math.sqrt(sum((r - mean) ** 2 for r in members) / (group - 1))
        result += [(r - mean) / (std + STD_FLOOR) for r in members]
    return result

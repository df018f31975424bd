"""Rewards with TRL's signature, and the advantage TRL makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

STD_FLOOR = 1e-4
"""TRL adds it to the group's standard deviation, so that a group of equal rewards yields zero
advantage."""


def negative_entropy(*, entropy: Sequence[float], **_: Any) -> list[float]:
    """r = -H: the negative response entropy, nats (arXiv 2510.01088, eq. 4).

    Args:
        entropy: (B,) response entropies, recorded by the rollout while it sampled.

    Raises:
        ValueError: An entropy is not finite.
    """
    if not all(math.isfinite(value) for value in entropy):
        raise ValueError("a response entropy is not finite")
    return [-value for value in entropy]


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

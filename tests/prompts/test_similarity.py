from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from sirl.prompts.similarity import NearIndex, counts, jaccard, shingles


def test_shingles_by_hand() -> None:
    assert shingles("How do I, um, pick?") == {"how do i", "do i um", "i um pick"}
    assert shingles("Two words") == {"two", "words"}
    assert shingles("???") == {"???"}
    assert shingles("你好吗") == {"你 好 吗"}


def test_jaccard_by_hand() -> None:
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0.0


def test_case_and_punctuation_do_not_tell_prompts_apart() -> None:
    index = NearIndex(1.0, {})
    index.add("How do I pick a lock?")
    assert index.near("how do i pick a LOCK")
    assert not index.near("how do i pick a sock")


def test_the_threshold_is_inclusive() -> None:
    a, b = "a b c d e f", "a b c d e z"  # 3 shared of 5
    index = NearIndex(0.6, {})
    index.add(a)
    assert index.near(b)
    strict = NearIndex(0.601, {})
    strict.add(a)
    assert not strict.near(b)


def test_wordless_prompts_are_near_themselves_only() -> None:
    index = NearIndex(0.5, {})
    index.add("???")
    assert index.near("???")
    assert not index.near("!!!")


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("ordered", [True, False])
def test_no_pair_is_missed_and_none_invented(threshold: float, ordered: bool) -> None:
    rng = random.Random(5)
    texts = [" ".join(rng.choice("abcdef") for _ in range(rng.randrange(0, 9))) for _ in range(300)]
    frequency: Mapping[str, int] = counts(texts) if ordered else {}
    index = NearIndex(threshold, frequency)
    found = 0
    for place, text in enumerate(texts):
        expected = any(
            jaccard(shingles(text), shingles(earlier)) >= threshold for earlier in texts[:place]
        )
        assert index.near(text) == expected
        found += expected
        index.add(text)
    assert 0 < found < 300

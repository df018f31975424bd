"""Near-duplicates by Jaccard similarity of word 3-grams: exact, with a prefix filter for speed.

If |a & b| / |a | b| >= t, then a and b share at least ceil(t |a|) shingles. Under any one order of
all shingles, two such sets must therefore share one among the first |a| - ceil(t |a|) + 1 of a and
the first |b| - ceil(t |b|) + 1 of b (Bayardo et al., "Scaling up all pairs similarity search", WWW
2007). Only these are indexed, so no pair is missed, as MinHash would with some probability, and no
random hashes are drawn.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

# Chinese characters and Japanese kana are written without spaces: each is a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def shingles(text: str) -> frozenset[str]:
    """Word 3-grams of a text, case folded; its words if fewer than three, itself if it has none."""
    words = WORD.findall(text.casefold())
    if len(words) < 3:
        return frozenset(words or [text])
    return frozenset(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|a & b| / |a | b|; 0 where both are empty."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def counts(texts: Iterable[str]) -> Counter[str]:
    """How many of the texts hold each shingle."""
    return Counter(shingle for text in texts for shingle in shingles(text))


class NearIndex:
    """Texts, to be asked whether another is near one of them.

    Args:
        threshold: Jaccard similarity in (0, 1] from which two texts are near.
        frequency: How common a shingle is; it orders them, rare ones first, so that a phrase which
            every prompt shares costs nothing. Any mapping gives the same answers.
    """

    def __init__(self, threshold: float, frequency: Mapping[str, int]) -> None:
        self.threshold = threshold
        self.frequency = frequency
        self._sets: list[frozenset[str]] = []
        self._holders: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, text: str) -> None:
        """Takes a text in."""
        own = shingles(text)
        for shingle in self._prefix(own):
            self._holders[shingle].append(len(self._sets))
        self._sets.append(own)

    def near(self, text: str) -> bool:
        """Whether a text taken in earlier has at least the threshold's similarity to this one."""
        own = shingles(text)
        candidates = {n for shingle in self._prefix(own) for n in self._holders.get(shingle, ())}
        return any(jaccard(own, self._sets[n]) >= self.threshold for n in candidates)

    def _prefix(self, own: frozenset[str]) -> list[str]:
        """The shingles among which a near text must share one."""
        # The epsilon keeps 0.6 * 5 = 3.0000000000000004 from asking for a fourth.
        needed = math.ceil(self.threshold * len(own) - 1e-9)
        ordered = sorted(own, key=lambda shingle: (self.frequency.get(shingle, 0), shingle))
        return ordered[: len(own) - needed + 1]

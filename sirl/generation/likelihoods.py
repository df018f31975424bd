"""Log-likelihoods of plain text, to the number those of lm-evaluation-harness' backend `hf`: what
comes first in a text, where a continuation begins, and what is done where a window ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

Encoded = tuple[list[int], int]
"""Token ids, and how many of them, at the end, are scored."""

WINDOW = 2048
"""Tokens of a window where the model has no bound, as in lm-eval."""


class Scorer(ABC):
    """A generator that scores token ids.

    Attributes:
        tokenizer: That of the model.
        context: Longest input in tokens; None where the model has no bound.
    """

    tokenizer: Any
    context: int | None

    @abstractmethod
    def scores(self, encoded: Sequence[Encoded]) -> list[tuple[float, bool]]:
        """Summed log-probability in nats of the scored ids, and whether greedy would say them."""

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """See `Generator.loglikelihoods`."""
        return self.scores([split(self.tokenizer, *pair) for pair in pairs])

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """See `Generator.rolling`."""
        length, first = self.context or WINDOW, prefix(self.tokenizer)
        cut = [list(windows(plain(self.tokenizer, text), first, length)) for text in texts]
        scored = iter(self.scores([window for one in cut for window in one]))
        return [sum(next(scored)[0] for _ in one) for one in cut]


def prefix(tokenizer: Any) -> int:
    """What a text is predicted from that has nothing before it."""
    first: int | None = tokenizer.bos_token_id
    return tokenizer.eos_token_id if first is None else first


def plain(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text with what the tokenizer puts first (many a model was never without it), unless
    the text has it already."""
    special = not text.startswith(tokenizer.decode([prefix(tokenizer)]))
    ids: list[int] = tokenizer(text, add_special_tokens=special)["input_ids"]
    return ids


def split(tokenizer: Any, context: str, continuation: str) -> Encoded:
    """Ids of the joined text. Space at the end of the context belongs to the continuation: there
    tokenizers join it."""
    head = context.rstrip()
    before = plain(tokenizer, head) if head else []
    if before:
        ids = plain(tokenizer, context + continuation)
        return ids, max(1, len(ids) - len(before))
    joined = context + continuation
    ids = tokenizer(joined, add_special_tokens=False)["input_ids"]
    first = prefix(tokenizer)
    return (ids, len(ids) - 1) if ids[:1] == [first] else ([first, *ids], len(ids))


def windows(ids: Sequence[int], first: int, length: int) -> Iterator[Encoded]:
    """Cuts a text so that every id is scored once, by inputs of `length` ids at most; the last
    window reaches back as far as it can."""
    whole = [first, *ids]
    for start in range(0, len(ids), length):
        end = min(start + length, len(ids))
        yield whole[max(0, end - length) : end + 1], end - start

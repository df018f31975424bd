"""White-box access to a target: the one place where an attack reaches behind `Generator`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from sirl.attacks.base import request
from sirl.attacks.budget import Meter
from sirl.errors import ModelError
from sirl.generation import Generator
from sirl.generation.best_of_n import BestOfN
from sirl.generation.tokens import render
from sirl.records import Message

if TYPE_CHECKING:
    from sirl.generation.transformers import TransformersGenerator


class Unsearchable(Exception):
    """A request around which no suffix can be searched; the message says why."""


def opened(target: Generator, attack: str) -> TransformersGenerator:
    """The generator whose model and tokenizer an attack may use; of best-of-n, the one it samples.

    Raises:
        ModelError: The target shows its answers alone.
    """
    from sirl.generation.transformers import TransformersGenerator

    inner = target.generator if isinstance(target, BestOfN) else target
    if not isinstance(inner, TransformersGenerator):
        raise ModelError(
            f"attack {attack} needs the weights of its target, and {type(inner).__name__} shows "
            "answers alone",
            "Set backend: {name: transformers}",
        )
    return inner


def losses(
    target: TransformersGenerator, messages: Sequence[str], start: str, meter: Meter
) -> list[float]:
    """Minus the log-probability, nats a token, of an answer that starts with `start`, for each
    message of the user's. Log-probabilities of texts are all that it needs.

    Raises:
        Unsearchable: A message has no encoding or is too long for the model.
    """
    chats = [request("", (Message("user", text),)) for text in messages]
    pairs = [(render(target.tokenizer, chat), start) for chat in chats]
    plain = {"add_special_tokens": False}  # the template has said what comes first
    try:
        ids = target.tokenizer([a + b for a, b in pairs], **plain)["input_ids"]
        heads = target.tokenizer([a for a, _ in pairs], **plain)["input_ids"]
    except TypeError:  # what tokenizers say of a lone surrogate
        raise Unsearchable("the request is not valid Unicode") from None
    _fits(target, max(map(len, ids), default=0))
    meter.count(queries=len(pairs), tokens=sum(map(len, ids)))
    length = len(target.tokenizer(start, **plain)["input_ids"])
    encoded = [(row, max(1, len(row) - len(head))) for row, head in zip(ids, heads, strict=True)]
    return [-value / length for value, _ in target.scores(encoded)]


def printable_tokens(generator: TransformersGenerator) -> list[int]:
    """Ids of the tokens that are printable ASCII and have no special meaning: what a suffix is
    written in."""
    tokenizer = generator.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [
        token
        for token, text in enumerate(texts)
        if text and text.isascii() and text.isprintable() and token not in special
    ]


@dataclass(frozen=True)
class Slot:
    """A templated chat with a place for a suffix: `before`, the suffix, `after`, then the answer.

    Attributes:
        request: The user's message without the suffix.
        before: Token ids of the chat up to the suffix.
        suffix: Those of the suffix that the slot was made with, (S,).
        after: Those from the suffix up to the answer.
        answer: Those of the answer's start that is wanted, (T,).
    """

    request: str
    before: tuple[int, ...]
    suffix: tuple[int, ...]
    after: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Length of the chat with suffix and answer."""
        return sum(map(len, (self.before, self.suffix, self.after, self.answer)))


def slot(generator: TransformersGenerator, text: str, suffix: str, start: str) -> Slot:
    """Finds where in the templated chat a suffix goes, as the model will read it.

    Args:
        generator: Whose template and tokenizer.
        text: The request.
        suffix: Any suffix to begin with.
        start: How the answer is to start.

    Raises:
        Unsearchable: The suffix or the answer is not in tokens of its own, or the text has no
            encoding or is too long for the model.
    """
    try:
        plain, whole, answered = (
            generator.encode(request("", chat))
            for chat in (
                (Message("user", text),),
                (Message("user", text + suffix),),
                (Message("user", text + suffix), Message("assistant", start)),
            )
        )
    except (TypeError, UnicodeEncodeError):  # what tokenizers say of a lone surrogate
        raise Unsearchable("the request is not valid Unicode") from None
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(plain, whole, strict=False))
    head = sum(1 for _ in shared)
    after = plain[head:]
    end = len(whole) - len(after)
    if end <= head or whole[end:] != after:
        raise Unsearchable("the tokenizer joins the suffix to the chat around it")
    if len(answered) <= len(whole) or answered[: len(whole)] != whole:
        raise Unsearchable("the tokenizer joins the answer to the chat before it")
    parts = (whole[:head], whole[head:end], after, answered[len(whole) :])
    found = Slot(text, *(tuple(part) for part in parts))
    if not faithful(generator, found, [whole[head:end]])[0]:
        raise Unsearchable("the tokenizer joins the suffix to the request")
    _fits(generator, found.tokens)
    return found


def _fits(generator: TransformersGenerator, tokens: int) -> None:
    """Refuses a chat that is too long for the model."""
    window = getattr(generator.model.config, "max_position_embeddings", tokens)
    if tokens > window:
        raise Unsearchable(f"{tokens} tokens exceed the context window of {window}")


def texts(generator: TransformersGenerator, slot: Slot, suffixes: Sequence[list[int]]) -> list[str]:
    """Each suffix as it reads at its place: some tokenizers drop a space at the start of a text."""
    decode = generator.tokenizer.batch_decode
    (head,) = decode([list(slot.before)], clean_up_tokenization_spaces=False)
    whole = decode([[*slot.before, *ids] for ids in suffixes], clean_up_tokenization_spaces=False)
    return [text[len(head) :] for text in whole]


def faithful(
    generator: TransformersGenerator, slot: Slot, suffixes: Sequence[list[int]]
) -> list[bool]:
    """Whether the chat with a suffix, sent as text, is read by the model as those very tokens."""
    return [
        generator.encode(request("", (Message("user", slot.request + text),)))
        == [*slot.before, *ids, *slot.after]
        for text, ids in zip(texts(generator, slot, suffixes), suffixes, strict=True)
    ]

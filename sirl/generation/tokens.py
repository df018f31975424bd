"""How chats and texts become token ids, the same for every backend that opens a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sirl.generation import Request
from sirl.generation.thinking import MARKS, PAIRS, left_open


def render(tokenizer: Any, request: Request) -> str:
    """The templated chat as text, ready for the assistant's answer, the prefill included. A prefill
    begins the answer: a thought that the template leaves open is ended before it."""
    text = _templated(tokenizer, request)
    if request.prefill and (mark := left_open(text).rstrip()):
        text += f"\n{PAIRS[mark]}\n\n"
    return text + request.prefill


def _templated(tokenizer: Any, request: Request) -> str:
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text


def thought_opened(tokenizer: Any, request: Request) -> str:
    """The mark of a thought that the response goes on with, which the template wrote: part of the
    response's text, or nobody could tell a thought that was cut from an answer."""
    return "" if request.prefill else left_open(_templated(tokenizer, request))


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a response without special tokens, those apart that are marks of its thoughts."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    whole = tokenizer.decode(ids)
    if not any(mark in whole and mark not in text for mark in MARKS):
        return text
    added = tokenizer.added_tokens_decoder
    special = {id for id, token in added.items() if token.special and token.content not in MARKS}
    kept: str = tokenizer.decode([id for id in ids if id not in special])
    return kept


def encode(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of the chat as `render` has it."""
    ids: list[int] = tokenizer(render(tokenizer, request), add_special_tokens=False)["input_ids"]
    return ids

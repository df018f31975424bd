"""How chats and texts become token ids, the same for every backend that opens a model folder."""

from __future__ import annotations

from typing import Any

from sirl.generation import Request


def render(tokenizer: Any, request: Request) -> str:
    """The templated chat as text, ready for the assistant's answer, the prefill included."""
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return text + request.prefill


def encode(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of the chat as `render` has it."""
    ids: list[int] = tokenizer(render(tokenizer, request), add_special_tokens=False)["input_ids"]
    return ids

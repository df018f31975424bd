"""Responses of models that think first: where the thoughts end and the answer begins.

Told by the marks that chat templates and tokenizers have for it. Thoughts stand at the start of a
response; a mark inside an answer is text.
"""

from __future__ import annotations

import re

PAIRS = {
    "<think>": "</think>",  # Qwen3, DeepSeek-R1, GLM, Nemotron and most others
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",  # Magistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",  # Gemma
}
"""What opens thoughts, and what ends them."""

MARKS = frozenset({*PAIRS, *PAIRS.values(), "<|channel>", "<|channel|>", "<|message|>"})
"""Tokens that tell thoughts from the answer: kept where special tokens are taken out of a text."""

# The channels of gpt-oss, and what is left of them where special tokens were taken out.
_FINAL = re.compile(r"<\|channel\|>final[^<]*<\|message\|>|(?<=\S)assistantfinal")
_CHANNEL = re.compile(r"\s*(?:<\|channel\|>|analysis(?=[A-Z]))")

_OPENS = [
    (re.compile(rf"\s*{re.escape(mark)}", re.I), re.compile(re.escape(end), re.I))
    for mark, end in PAIRS.items()
] + [(_CHANNEL, _FINAL)]
# An end whose beginning the chat template wrote. Not where an answer speaks of the mark.
_ENDS = [(re.compile(rf"(?<![`'\"]){re.escape(end)}", re.I), mark) for mark, end in PAIRS.items()]


def answer(text: str) -> str | None:
    """What follows the thoughts that a response begins with: all of it where it has none, None
    where they have no end."""
    if (ends := _unopened(text)) is not None:
        text = text[ends:]
    while ends_of := next((ends for opens, ends in _OPENS if opens.match(text)), None):
        end = ends_of.search(text)
        if end is None:
            return None
        text = text[end.end() :]
    return text


def _unopened(text: str) -> int | None:
    """Where thoughts end that have no beginning in the text."""
    for ends, mark in _ENDS:
        end = ends.search(text)
        if end and mark.lower() not in text[: end.start()].lower():
            return end.end()
    return None


def left_open(prompt: str) -> str:
    """The mark with which a templated chat leaves a thought open for the model to go on with, and
    the white space after it; empty where it leaves none."""
    bare = prompt.rstrip()
    mark = next((mark for mark in PAIRS if bare.endswith(mark)), "")
    return mark and mark + prompt[len(bare) :]

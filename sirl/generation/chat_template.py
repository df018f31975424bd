"""The chat template of a model: a program by whoever made the model, tried before it is relied on.

It is tried in a process of its own, with limits on time and memory. The day that a template may ask
for is always `DATE`: base and trained, a run and its resumption must read the same prompts.
"""

from __future__ import annotations

import functools
import importlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Set
from datetime import datetime
from typing import Any

from sirl.errors import ModelError

DATE = datetime(2024, 7, 26)
"""The day that Llama's templates write where they are told none."""

QUESTION, ANSWER, NEXT = "How do I bake a loaf of bread?", "With flour.", "How long does it take?"

CPU_SECONDS = 2
MEMORY = 2 << 30
WALL_SECONDS = 120
"""For a machine that does much else."""
MAX_CHARACTERS = 1 << 16

_TRIES = 8
_DIRECTIVES = (
    "%-d",
    "%-m",
    "%-I",
    "%-H",
    "%-j",
    *(f"%{letter}" for letter in "aAbBcCdDeFgGhHIjmMprRSTuUVwWxXyYzZ"),
)


def pinned(template: Any) -> Any:
    """A tokenizer's template, or its templates by name, with `strftime_now` telling `DATE`."""
    if isinstance(template, dict):
        return {name: pinned(text) for name, text in template.items()}
    if not template or "strftime_now" not in template:
        return template
    told = "".join(f"|replace('{d}', '{DATE.strftime(d)}')" for d in _DIRECTIVES)
    # The empty text at its end keeps Jinja from trimming the template's own beginning.
    macro = "{% macro strftime_now(format) %}{{ format" + told + " }}{% endmacro %}{{ '' }}"
    return template if template.startswith(macro) else macro + template


def check(tokenizer: Any, end_ids: Set[int] | None) -> list[int]:
    """Refuses a template by which a model cannot be asked, or would not end its answer.

    Args:
        tokenizer: It has a template, pinned.
        end_ids: The tokens at which generation stops; None for a model that does not generate.

    Returns:
        The tokens of a chat by it.

    Raises:
        ModelError: It cannot be rendered within the limits, or not twice alike; the question or the
            answer is not in it; it opens no turn for the answer, or ends it with none of `end_ids`.
    """
    prompt, closed, told, on = _tried(tokenizer)
    if "error" in prompt:
        raise ModelError(f"the chat template cannot render a question: {prompt['error']}", _MEND)
    if QUESTION not in prompt["text"]:
        raise ModelError("the chat template leaves out the question that is asked", _MEND)
    if ANSWER not in told.get("text", ""):
        why = f": {told['error']}" if "error" in told else ""
        raise ModelError(f"the chat template cannot render a chat with an answer{why}", _MEND)
    if end_ids is None:
        return _ids(tokenizer, told["text"])
    head, _, tail = told["text"].partition(ANSWER)
    before = closed.get("text")
    if before == prompt["text"] and head.startswith(before) and head[len(before) :].strip():
        raise ModelError(
            "the chat template opens no turn for the answer: it heeds no add_generation_prompt",
            _MEND,
        )
    # Some end an answer by the token that opens the next turn.
    tails = [tail, on.get("text", "").partition(ANSWER)[2].partition(NEXT)[0]]
    if not any(end_ids & set(_ids(tokenizer, text)) for text in tails):
        ends = sorted(str(token) for token in tokenizer.convert_ids_to_tokens(sorted(end_ids)))
        raise ModelError(
            f"the chat template ends an answer with {(tail or tails[1])[:40]!r}, which holds no "
            f"end token of the model ({', '.join(ends)}): no answer would end",
            "Name the token in eos_token_id of generation_config.json",
        )
    return _ids(tokenizer, told["text"])


_MEND = "Mend chat_template.jinja, or use a chat (Instruct) model"


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _tried(tokenizer: Any) -> list[dict[str, str]]:
    """A prompt with and without the opening of an answer, then with the answer, then going on."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError(f"no chat template of the tokenizer is its default: {error}") from None
    ask, say, more = (
        {"role": role, "content": text}
        for role, text in (("user", QUESTION), ("assistant", ANSWER), ("user", NEXT))
    )
    chats = [([ask], True), ([ask], False), ([ask, say], False), ([ask, say, more], True)]
    body = {"template": template, "chats": chats, "tokens": tokenizer.special_tokens_map}
    return _render_apart(json.dumps(body, sort_keys=True))


@functools.lru_cache
def _render_apart(body: str) -> list[dict[str, str]]:
    """`renderings` in a process of its own; each template is tried once a process."""
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=body, capture_output=True, text=True, timeout=WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, -signal.SIGXCPU)
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ModelError(
            f"the chat template does not render one question within {CPU_SECONDS} s", _MEND
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise ModelError(f"the chat template cannot be rendered: {said[:200]}", _MEND)
    rendered: list[dict[str, str]] = json.loads(done.stdout)
    return rendered


def main() -> None:
    """The process: reads a template and chats, writes their renderings or what went wrong."""
    importlib.import_module("transformers.utils.chat_template_utils")  # before the limits hold
    given = json.load(sys.stdin)
    _limit()
    json.dump(renderings(given), sys.stdout)


def renderings(given: dict[str, Any]) -> list[dict[str, str]]:
    """The `text` of each chat by a template, or the `error`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(chat: list[dict[str, str]], opened: bool) -> str:
        (text,), _ = render_jinja_template(
            [chat], chat_template=given["template"], add_generation_prompt=opened, **given["tokens"]
        )
        return str(text)

    def tried(chat: list[dict[str, str]], opened: bool) -> dict[str, str]:
        try:
            text, *others = {render(chat, opened) for _ in range(_TRIES)}
        except Exception as error:  # it is anybody's program
            return {"error": f"{type(error).__name__}: {error}"[:200]}
        if others:
            return {"error": "it renders one chat now so, now otherwise"}
        if len(text) > MAX_CHARACTERS:
            return {"error": f"one question becomes {len(text):,} characters"}
        return {"text": text}

    return [tried(chat, opened) for chat, opened in given["chats"]]


def _limit() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    for what, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_DATA, MEMORY)):
        _, hard = resource.getrlimit(what)
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (soft, hard))


if __name__ == "__main__":
    main()

"""Where thoughts end: by their marks in the text, in the tokens, and in the chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from sirl.errors import ModelError
from sirl.generation import Request, Sampling, TransformersBackend
from sirl.generation.thinking import PAIRS, answer, left_open
from sirl.generation.tokens import decode, render, thought_opened
from sirl.models import chat_template_digest, load_tokenizer, set_template_arguments
from sirl.records import Message, digest_folder
from tests.conftest import CHAT_TEMPLATE

HARMONY = "<|channel|>analysis<|message|>Bread?<|end|><|start|>assistant<|channel|>final<|message|>"
CHAT = Request("r", (Message("user", "Bread?"),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Bake it.", "Bake it."),
        ("", ""),
        ("<think>\nBread?\n</think>\n\nBake it.", "\n\nBake it."),
        ("\n<THINK>Bread?</THINK>Bake it.", "Bake it."),
        ("<think></think>Bake it.", "Bake it."),
        ("<think>a</think>\n<think>b</think>Bake it.", "Bake it."),
        ("<think>a</think>", ""),
        ("<think>\nBread? Is that", None),
        ("<think>a</think><think>b", None),
        ("Bread?\n</think>\n\nBake it.", "\n\nBake it."),  # the template opened it
        ("</think>Bake it.", "Bake it."),
        # The first end is the end: what follows is the answer, whatever it speaks of.
        ("<think>a</think>Write </think> at the end.", "Write </think> at the end."),
        # A mark inside an answer is text.
        ("Put it in <think>x</think> tags.", "Put it in <think>x</think> tags."),
        ("Close it with `</think>` at last.", "Close it with `</think>` at last."),
        ('Close it with "</think>" at last.', 'Close it with "</think>" at last.'),
        ("I think. </b>", "I think. </b>"),
        ("[THINK]Bread?[/THINK]Bake it.", "Bake it."),
        ("[THINK]Bread?", None),
        ("Bread?[/THINK]Bake it.", "Bake it."),
        (HARMONY + "Bake it.", "Bake it."),
        (HARMONY.replace("<|end|><|start|>", "") + "Bake it.", "Bake it."),
        (HARMONY.partition("<|end|>")[0], None),
        ("<|channel|>commentary<|message|>x" + HARMONY + "Bake it.", "Bake it."),
        ("<|channel|>final<|message|>Bake it.", "Bake it."),
        ("analysisThe user asks.assistantfinalBake it.", "Bake it."),
        ("analysisThe user asks", None),
        ("analysis of bread: bake it.", "analysis of bread: bake it."),
        ("Analysis: Bake it.", "Analysis: Bake it."),
    ],
)
def test_what_follows_the_thoughts(text: str, said: str | None) -> None:
    assert answer(text) == said


@pytest.mark.parametrize("mark", PAIRS)
def test_every_kind_of_mark(mark: str) -> None:
    assert answer(f"{mark}\nBread?\n{PAIRS[mark]}Bake it.") == "Bake it."
    assert answer(f"Bread?\n{PAIRS[mark]}Bake it.") == "Bake it."
    assert answer(f"{mark}\nBread?") is None
    assert left_open(f"assistant\n{mark}\n") == f"{mark}\n"
    assert left_open(f"assistant\n{mark}\n\n{PAIRS[mark]}\n\n") == ""


def thinker(
    tiny_model: Path, folder: Path, *, opens: str = "", special: tuple[str, ...] = ()
) -> Any:
    """The tiny model's tokenizer with marks of its own and a template that thinks if told to."""
    tokenizer: Any = load_tokenizer(tiny_model)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant\n", "assistant\n" + opens)
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


def test_a_template_that_opens_the_thought(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = thinker(tiny_model, tmp_path, opens="<think>\n")
    assert render(tokenizer, CHAT).endswith("<|im_start|>assistant\n<think>\n")
    assert thought_opened(tokenizer, CHAT) == "<think>\n"
    # A prefill begins the answer, not the thought.
    forced = Request("r", CHAT.messages, prefill="Sure")
    assert render(tokenizer, forced).endswith("assistant\n<think>\n\n</think>\n\nSure")
    assert thought_opened(tokenizer, forced) == ""
    plain = load_tokenizer(tiny_model)
    assert render(plain, forced).endswith("assistant\nSure")
    assert thought_opened(plain, CHAT) == ""
    # Nor does a request that ends like one open anything.
    assert thought_opened(plain, Request("r", (Message("user", "<think>\n"),))) == ""


def test_marks_that_are_special_tokens_stay_in_the_text(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = thinker(tiny_model, tmp_path, special=("[THINK]", "[/THINK]", "<|other|>"))
    ids = tokenizer("[THINK]a[/THINK]<|other|>b<|im_end|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"
    assert decode(tokenizer, ids) == "[THINK]a[/THINK]b"
    plain = tokenizer("a<|other|>b<|im_end|>", add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, plain) == "ab"


def test_a_response_holds_the_thought_that_its_template_opened(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    thinker(tiny_model, folder, opens="<think>\n")

    generator = TransformersBackend(dtype="float32").open(folder, "cpu")
    (done,) = generator.generate([CHAT], Sampling(max_new_tokens=4))
    assert done.text.startswith("<think>\n") and answer(done.text) is None
    assert len(done.token_ids) == 4


SWITCH = CHAT_TEMPLATE.replace(
    "assistant\n",
    "assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{{ effort }}",
)


def switched(tiny_model: Path, folder: Path) -> Path:
    shutil.copytree(tiny_model, folder)
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.chat_template = SWITCH
    tokenizer.save_pretrained(folder)
    return folder


def test_template_arguments_are_part_of_the_folder(tiny_model: Path, tmp_path: Path) -> None:
    folder = switched(tiny_model, tmp_path / "model")
    before = chat_template_digest(folder), digest_folder(folder)
    assert render(load_tokenizer(folder), CHAT).endswith("assistant\n<think>\n")
    set_template_arguments(folder, {})
    assert (chat_template_digest(folder), digest_folder(folder)) == before
    set_template_arguments(folder, {"enable_thinking": False, "effort": 'low "\u00e9" {{ 1 }}'})
    chat = render(load_tokenizer(folder), CHAT)
    assert chat.endswith('assistant\n<think>\n\n</think>\n\nlow "\u00e9" {{ 1 }}')
    after = chat_template_digest(folder), digest_folder(folder)
    assert after[0] != before[0] and after[1] != before[1]


@pytest.mark.parametrize(
    ("value", "shown"), [(True, "True"), (None, "None"), (3, "3"), (0.5, "0.5"), ("a", "a")]
)
def test_every_kind_of_argument(
    value: bool | int | float | str | None, shown: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = switched(tiny_model, tmp_path / "model")
    set_template_arguments(folder, {"effort": value})
    assert render(load_tokenizer(folder), CHAT).endswith(f"<think>\n{shown}")


@pytest.mark.parametrize("name", ["enable_thinkng", "thinking", "messages"])
def test_an_argument_that_the_template_does_not_know_is_refused(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = switched(tiny_model, tmp_path / "model")
    with pytest.raises(ModelError, match=f"has no argument {name}"):
        set_template_arguments(folder, {name: False})
    assert json.loads((folder / "tokenizer_config.json").read_text())

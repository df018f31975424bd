from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import transformers.utils.chat_template_utils as jinja
import trl

from sirl import models
from sirl.errors import ModelError
from sirl.generation import Request, chat_template
from sirl.generation.tokens import render
from sirl.records import Message

LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
END = frozenset({1})  # <|im_end|> of the tiny model


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return models.load_tokenizer(tiny_model)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates that do end are rendered in this process, which is quicker."""
    monkeypatch.setattr(
        chat_template, "_render_apart", lambda body: chat_template.renderings(json.loads(body))
    )


def check(tokenizer: Any, template: str, ends: frozenset[int] = END) -> None:
    before = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        chat_template.check(tokenizer, ends)
    finally:
        tokenizer.chat_template = before


GOOD = {
    "chatml": LOOP + OPEN,
    "no system turn, strict turns": "{% for m in messages %}{% if (m.role == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}<|im_start|>{{ m.content }}"
    "<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}",
    "the next turn ends an answer": "{% for m in messages %}{{ '<|im_end|>' if m.role == 'user' }}"
    "{{ m.role }}\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}",
    "question and answer share a turn": "{% for m in messages %}{% if m.role == 'user' %}"
    "[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}",
    "thoughts are opened": LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n"
    "{% endif %}",
}


@pytest.mark.parametrize("name", GOOD)
def test_templates_that_work(tokenizer: Any, here: None, name: str) -> None:
    check(tokenizer, GOOD[name])


BAD = {
    "{{ raise_exception('no') }}": r"cannot render a question: TemplateError: no\. Mend",
    "{% for %}": "cannot render a question: TemplateSyntaxError",
    "{{ messages.__class__.__mro__ }}": "cannot render a question: SecurityError",
    "{{ tools | length }}" + LOOP + OPEN: "cannot render a question: TypeError",
    "no message in it" + OPEN: "leaves out the question",
    "{% for m in messages %}{{ m.content[0].text }}{% endfor %}": "leaves out the question",
    "{{ messages[0].content }}" + OPEN: "cannot render a chat with an answer",
    "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}" + LOOP + OPEN: (
        "cannot render a chat with an answer: TemplateError: one"
    ),
    LOOP: "opens no turn for the answer",
    "{{ [1, 2] | random }}" + LOOP + OPEN: "now so, now otherwise",
    "{{ lipsum() }}" + LOOP + OPEN: "now so, now otherwise",
    "{{ 'a' * 70000 }}" + LOOP + OPEN: "becomes 70,0.. characters",
    LOOP.replace("<|im_end|>", "###") + OPEN: "ends an answer with '###.*no answer would end",
    LOOP.replace("<|im_end|>", "") + OPEN: "no answer would end",
}


@pytest.mark.parametrize("template", BAD)
def test_templates_that_cannot_work(tokenizer: Any, here: None, template: str) -> None:
    with pytest.raises(ModelError, match=BAD[template]) as caught:
        check(tokenizer, template)
    assert "\n" not in str(caught.value)


def test_an_end_of_turn_that_ends_no_answer_is_told(tokenizer: Any, here: None) -> None:
    with pytest.raises(ModelError, match=r"'<\|im_end\|>\\n'.*\(<\|im_start\|>\)"):
        check(tokenizer, "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}", {0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "endless",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 99 ** (9 ** 9) }}",  # one step of C, at compilation
        "{{ 'a' * 8000000000 }}",
    ],
)
def test_a_template_without_an_end_hangs_nothing(tokenizer: Any, endless: str) -> None:
    with pytest.raises(ModelError, match=r"does not render one question|MemoryError"):
        check(tokenizer, endless + LOOP + OPEN)


DATED = "{% if strftime_now is defined %}{{ strftime_now('%-d %d %b %Y, %A %H:%M') }}{% endif %}"


@pytest.fixture
def dated(tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "chat_template.jinja").write_text("\n " + DATED + LOOP + OPEN)
    return folder


def test_every_day_is_one_day(dated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 1, 2, 3, 4)

    monkeypatch.setattr(jinja, "datetime", Later)
    tokenizer = models.load_tokenizer(dated)
    text = render(tokenizer, Request("a", (Message("user", "hi"),)))
    assert text == (
        "\n26 26 Jul 2024, Friday 00:00<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], return_dict=False)
    assert tokenizer.decode(ids).startswith("\n26 26 Jul 2024, Friday 00:00<|im_start|>")


def test_the_day_is_in_the_digest(dated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models.chat_template_digest(dated)
    monkeypatch.setattr(chat_template, "DATE", datetime(2025, 1, 1))
    assert models.chat_template_digest(dated) != before


def test_pinning_twice_is_pinning_once_and_others_stay(tiny_model: Path) -> None:
    once = chat_template.pinned(DATED)
    assert chat_template.pinned(once) == once != DATED
    assert chat_template.pinned({"default": LOOP, "x": DATED}) == {"default": LOOP, "x": once}
    assert chat_template.pinned(None) is None


def test_remote_code_is_not_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.T", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    with pytest.raises(ModelError, match=r"cannot be loaded: .* custom code"):
        models.load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()


KNOWN = {
    "llama3_2": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "phi3": "<|end|>",
    "gptoss": "<|return|>",
    "glm4moe": "<|user|>",
    "cohere2": "<|END_OF_TURN_TOKEN|>",
}
"""Templates of known families, as TRL ships them, and what ends an answer by each."""


class Words:
    """A tokenizer that knows a template and the token that ends an answer by it."""

    special_tokens_map: ClassVar[dict[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}

    def __init__(self, name: str) -> None:
        path = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
        self.end, self.template = KNOWN[name], chat_template.pinned(path.read_text())

    def get_chat_template(self) -> str:
        return str(self.template)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [int(part == self.end) for part in re.split(self.pattern, text)]}

    @property
    def pattern(self) -> str:
        return f"({re.escape(self.end)})"

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.end if id == 1 else "?" for id in ids]


@pytest.mark.parametrize("name", KNOWN)
def test_the_templates_of_known_families_work(here: None, name: str) -> None:
    chat_template.check(Words(name), END)
    with pytest.raises(ModelError, match="no answer would end"):
        chat_template.check(Words(name), frozenset({2}))


@pytest.mark.parametrize(("name", "day"), [("llama3_2", "26 Jul 2024"), ("gptoss", "2024-07-26")])
def test_known_templates_tell_the_day(here: None, name: str, day: str) -> None:
    prompt, *_ = chat_template._tried(Words(name))
    assert f"{day}\n" in prompt["text"]

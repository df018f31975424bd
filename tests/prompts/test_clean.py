from __future__ import annotations

import time
from collections import Counter

import pytest

from sirl.prompts import Instructions
from sirl.prompts.clean import MOST_MARKS, clean, excluded, normalised
from sirl.records import Prompt


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(f"t/{n}", text, "t", "benign") for n, text in enumerate(texts)]


def test_each_reason_is_counted_once() -> None:
    dropped: Counter[str] = Counter()
    given = prompts(
        " a ", "", " \n", "x" * 11, "y" * 10, "a", "b\u0301", "\u0301".join(("b", "")), "c"
    )
    kept = list(clean(given, max_chars=10, dropped=dropped))
    assert [prompt.text for prompt in kept] == ["a", "y" * 10, "b\u0301", "c"]
    assert dropped == {"empty": 2, "too_long": 1, "duplicate": 2}


def test_the_first_of_equal_prompts_stays_and_keeps_its_id() -> None:
    kept = list(clean(prompts("a", "a "), max_chars=10, dropped=Counter()))
    assert [prompt.id for prompt in kept] == ["t/0"]


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00\x1b[1mb\x7f", "a[1mb"),
        ("tab\there", "tab\there"),
        ("\ud800broken", "broken"),
        ("\ufeffmarked", "marked"),
        *((f"two{mark}words", "two\nwords") for mark in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
        ("two\x1fwords", "two words"),
        ("a" + "\u0301\u0316" * 16, "\u00e1" + "\u0316" * 15 + "\u0301" * 14),
        ("\u0316" * 31, "\u0316" * 30),
        ("\u0e01" + "\u0316" * 31, "\u0e01" + "\u0316" * 30),
        ("\u0e01\u0e34\u0e48" * 20, "\u0e01\u0e34\u0e48" * 20),
        ("你好\u3000", "你好"),
    ],
)
def test_normalised(raw: str, wanted: str) -> None:
    assert normalised(raw) == wanted
    assert normalised(normalised(raw)) == wanted
    normalised(raw).encode()  # no lone surrogate is left


def test_a_million_combining_marks_do_not_hang() -> None:
    text = "a" + "\u0301\u0316" * 500_000
    began = time.monotonic()
    assert len(normalised(text)) == MOST_MARKS
    assert not excluded(text)
    assert time.monotonic() - began < 10


def test_it_excludes_nothing_that_this_project_wrote() -> None:
    assert not [prompt.id for prompt in Instructions().prompts() if excluded(prompt.text)]

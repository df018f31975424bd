from __future__ import annotations

import pytest

from sirl.report import words


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not measured"),
        (0.0, "0 %"),
        (0.042, "4.2 %"),
        (0.0999, "10 %"),
        (0.425, "42 %"),
        (1.0, "100 %"),
    ],
)
def test_percent(value: float | None, said: str) -> None:
    assert words.percent(value) == said.replace(" %", "\u00a0%")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.4, 0.85, "+45.0 pts"),
        (0.5, 0.25, "\N{MINUS SIGN}25.0 pts"),
        (0.3, 0.3001, "±0 pts"),
        (None, 0.3, "not measured"),
    ],
)
def test_points(before: float | None, after: float | None, said: str) -> None:
    assert words.points(before, after) == said.replace(" pts", "\u00a0pts")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (7260, "2 h 1 min")],
)
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds).replace("\u00a0", " ") == said


def test_brief_keeps_two_digits() -> None:
    assert [words.brief(v) for v in (0, 0.0005, 0.051, 1.5, 22.6, 480)] == [
        "0", "0.0005", "0.051", "1.5", "23", "480",
    ]  # fmt: skip


def test_visible_bounds_and_counts_the_rest() -> None:
    assert words.visible("abcdef", 4) == "abcd… [2 more characters]"
    assert words.visible("abcd", 4) == "abcd"


def test_visible_shows_what_is_invisible() -> None:
    assert words.visible("a\x00\x1b\x7f\u202eb\ud800\n\t") == "a␀␛\ufffd\ufffdb\ufffd\n\t"
    assert words.visible("a\ufeff\u200b\u00adb\U000e0041") == "a\ufffd\ufffd\ufffdb\ufffd"
    kept = "漢字 🙂 é 🏳️\u200d🌈"
    assert words.visible(kept) == kept


def test_short_fits_a_figure() -> None:
    assert words.short("instruction_following") == "instruction followi…"
    assert words.short("past_tense") == "past tense"

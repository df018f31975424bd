"""Numbers and model output as a reader sees them. Pure functions; None is said in words."""

from __future__ import annotations

import unicodedata

UNKNOWN = "not measured"
NBSP = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
MAX_CHARS = 1200
"""Characters of a prompt or response that the page shows; the rest is counted."""

_JOINERS = "\u200c\u200d"
"""Scripts and emoji need them, and they hide nothing."""


def percent(value: float | None) -> str:
    """A share as a whole percentage; one decimal below 10 %, where a digit is much."""
    if value is None:
        return UNKNOWN
    decimals = 1 if 0 < abs(value) < 0.0995 else 0
    return f"{100 * value:.{decimals}f}{NBSP}%"


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval of a share."""
    return (
        UNKNOWN if low is None or high is None else f"{100 * low:.0f}{DASH}{100 * high:.0f}{NBSP}%"
    )


def points(before: float | None, after: float | None) -> str:
    """The change of a share in percentage points, signed."""
    if before is None or after is None:
        return UNKNOWN
    change = 100 * (after - before)
    return f"±0{NBSP}pts" if abs(change) < 0.05 else f"{change:+.1f}{NBSP}pts".replace("-", MINUS)


def number(value: float | None, decimals: int = 2) -> str:
    """A plain number."""
    return UNKNOWN if value is None else f"{value:.{decimals}f}".replace("-", MINUS)


def brief(value: float) -> str:
    """A number to two digits, or to the unit where it has more."""
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def nats(value: float | None) -> str:
    """An entropy."""
    return UNKNOWN if value is None else f"{number(value)}{NBSP}nats"


def duration(seconds: float) -> str:
    """Wall time in the two units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NBSP}s"
    if whole < 3600:
        return f"{whole // 60}{NBSP}min {whole % 60}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60}{NBSP}min"


def gib(count: int) -> str:
    """Bytes in GiB."""
    return f"{count / 2**30:.1f}{NBSP}GiB"


def counted(count: int, noun: str) -> str:
    """`1 refusal`, `2 refusals`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def label(name: str) -> str:
    """A name of params.yaml as words."""
    return visible(name, 48).replace("_", " ").replace("/", ": ")


def short(name: str, limit: int = 20) -> str:
    """`label` for a figure, where room is scarce."""
    whole = label(name)
    return whole if len(whole) <= limit else whole[: limit - 1].rstrip() + "…"


def visible(text: str, limit: int = MAX_CHARS) -> str:
    """Model output or a prompt, fit to be shown: bounded, and nothing in it invisible or obeyed.

    Control characters become their pictures (␀); direction overrides, zero-width and private
    characters and lone surrogates become the replacement character; lines and tabs stay. HTML is
    escaped where it is put into HTML.
    """
    shown = "".join(_visible_character(character) for character in text[:limit])
    hidden = len(text) - limit
    return f"{shown}… [{hidden:,} more characters]" if hidden > 0 else shown


def _visible_character(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    # Control, format, surrogate, private and unassigned.
    return "\ufffd" if unicodedata.category(character).startswith("C") else character

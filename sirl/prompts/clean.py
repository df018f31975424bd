"""What is done to every prompt at the door."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sirl.records import Prompt

BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Whatever else ends a line or a paragraph: taken out, it would join two words."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
"""Control characters but tab and newline, byte order marks, and lone surrogates, which UTF-8 cannot
hold."""

MOST_MARKS = 30
"""Combining marks in a row that are kept: no writing system has more (UAX #15, stream-safe text).
Sorting them takes time with the square of their number."""
_MAY_BE_MARKS = re.compile(rf"[^\x00-\u02ff]{{{MOST_MARKS + 1}}}")
_INVISIBLE = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064]")

# Sexual content about minors is never processed, whatever the purpose of its source. The rule errs
# on the side of dropping: a word of each list anywhere in the prompt, or one word that means both.
MINOR = re.compile(
    r"\b(?:child(?:ren)?|childhood|kids?|minors?|underage|under age|juveniles?|infants?"
    r"|bab(?:y|ies)|toddlers?|teens?|teenage(?:d|rs?)?|preteens?|adolescents?|youngsters?|boys?|girls?"
    r"|school(?:boy|girl|child)(?:s|ren)?|pupils?|kindergart\w+|preschool\w*|lol[i]\w*"
    r"|(?:\d|1[0-7]) ?(?:years? ?olds?|y/?o))\b"
)
SEXUAL = re.compile(
    r"\b(?:sex\w*|porn\w*|erotic\w*|nud[ei]\w*|naked|molest\w*|rap(?:e|es|ed|ing|ists?)|incest\w*"
    r"|groom(?:s|ed|ing|ers?)|lewd\w*|obscen\w*|fetish\w*|masturbat\w*|genital\w*|orgasm\w*"
    r"|intercourse|seduc\w*|prostitut\w*|strip(?:s|ped|ping|tease)|nsfw|xxx)\b"
)
BOTH = re.compile(r"\b(?:csam|csem|p(?:a)?edophil\w*|p(?:a)?edo|hebephil\w*|child abuse images?)\b")


def normalised(text: str) -> str:
    """The text in NFC with newlines as LF, unprintable characters gone and ends stripped."""
    plain = BREAKS.sub("\n", text).replace("\x1f", " ")
    return unicodedata.normalize("NFC", stream_safe(UNPRINTABLE.sub("", plain))).strip()


def stream_safe(text: str) -> str:
    """The text with at most `MOST_MARKS` combining marks in a row."""
    if not _MAY_BE_MARKS.search(text):
        return text
    kept, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def excluded(text: str) -> bool:
    """Whether a prompt is sexual and about minors, judged so as to drop rather too much."""
    plain = unicodedata.normalize("NFKC", stream_safe(_INVISIBLE.sub("", text))).casefold()
    flat = re.sub(r"[\s_\-]+", " ", plain)
    return bool(BOTH.search(flat) or (MINOR.search(flat) and SEXUAL.search(flat)))


def clean(prompts: Iterable[Prompt], *, max_chars: int, dropped: Counter[str]) -> Iterator[Prompt]:
    """Yields normalised prompts; counts in `dropped` those that are left out, by reason.

    Reasons: `empty`, `too_long`, `excluded` (see `excluded`; the text is logged nowhere) and
    `duplicate` (equal to an earlier one after normalisation).
    """
    seen: set[str] = set()
    for prompt in prompts:
        text = normalised(prompt.text)
        reason = _reason(text, max_chars, seen)
        if reason:
            dropped[reason] += 1
        else:
            seen.add(text)
            yield replace(prompt, text=text)


def _reason(text: str, max_chars: int, seen: set[str]) -> str:
    """Why a normalised text is left out, or nothing."""
    if not text:
        return "empty"
    if len(text) > max_chars:
        return "too_long"
    if excluded(text):
        return "excluded"
    return "duplicate" if text in seen else ""

"""What is done to every prompt at the door."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sirl.records import Prompt

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab and newline, and lone surrogates, which UTF-8 cannot hold."""

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
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", UNPRINTABLE.sub("", plain)).strip()


def excluded(text: str) -> bool:
    """Whether a prompt is sexual and about minors, judged so as to drop rather too much."""
    flat = re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", text).casefold())
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

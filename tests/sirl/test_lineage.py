from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sirl import lineage
from sirl.errors import DataError


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

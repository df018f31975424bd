from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sirl.errors import DataError
from sirl.records import Prompt
from sirl.store import Store

HOLDER = """
import sys, time
from pathlib import Path
from sirl.records import Prompt
from sirl.store import Store
with Store(Path(sys.argv[1]), Prompt).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def rows(name: str, count: int = 2) -> list[Prompt]:
    return [Prompt(f"{name}/{n}", "text", "t", "benign") for n in range(count)]


def test_rows_come_back_shard_by_shard(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", Prompt)
    assert "a" not in store
    store.put("b", rows("b"))
    store.put("a", rows("a"))
    assert "a" in store
    assert list(store.rows(["b", "a"])) == rows("b") + rows("a")


def test_the_lock_makes_the_folder_and_can_be_had_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "state" / "deep", Prompt)
    for _ in range(2):
        with store.locked():
            assert store.folder.is_dir()


def test_a_shard_that_dies_while_it_is_written_is_not_there(tmp_path: Path) -> None:
    def torn() -> object:
        yield from rows("a")
        raise KeyboardInterrupt

    store = Store(tmp_path, Prompt)
    with pytest.raises(KeyboardInterrupt):
        store.put("a", torn())  # type: ignore[arg-type]
    assert "a" not in store
    assert not list(tmp_path.iterdir())


def test_two_runs_on_one_store(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        store = Store(tmp_path, Prompt)
        with (
            pytest.raises(DataError, match=r"another run is at work in .*Wait for it"),
            store.locked(),
        ):
            raise AssertionError
    finally:
        other.kill()
        other.wait()
    with store.locked():
        pass  # kill -9 leaves no lock behind

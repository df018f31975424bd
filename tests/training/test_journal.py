from __future__ import annotations

from pathlib import Path

from sirl import records
from sirl.records import Completion
from sirl.training.journal import Journal


def rows(*ids: str) -> list[Completion]:
    return [Completion(id, "text", (5,), (0.5,), "stop", 3) for id in ids]


def test_what_was_kept_is_recalled_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.keep(rows("a", "b"))
    journal.keep(rows("c"))
    found = Journal(path).recall(["c", "a"])
    assert found is not None and list(found) == ["c", "a"]
    assert Journal(path).recall(["a", "d"]) is None
    journal.forget()
    assert not path.exists() and journal.recall(["a"]) is None
    journal.keep(rows("a"))
    assert [row.id for row in records.read(path, Completion)] == ["a"]


def test_a_batch_that_a_kill_left_half_written_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).keep(rows("a", "b", "c"))
    path.write_bytes(path.read_bytes()[:-20])
    Journal(path).keep(rows("a", "b", "c"))
    assert [row.id for row in records.read(path, Completion)] == ["a", "b", "c"]

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sirl import records
from sirl.errors import DataError
from sirl.records import Prompt


def prompt(index: int, text: str = "hello") -> Prompt:
    return Prompt(f"x/{index}", text, "x", "benign")


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    rows = [prompt(0, "ü \u2028 \x00 <script>"), prompt(1)]
    assert records.write(tmp_path / "rows.jsonl", rows) == 2
    assert list(records.read(tmp_path / "rows.jsonl", Prompt)) == rows


def test_a_lone_surrogate_does_not_stop_the_run(tmp_path: Path) -> None:
    records.write(tmp_path / "rows.jsonl", [prompt(0, "a\ud800b")])
    assert [r.text for r in records.read(tmp_path / "rows.jsonl", Prompt)] == ["a?b"]


def test_malformed_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(records.dumps(prompt(0)) + b'{"id": 3}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2"):
        list(records.read(path, Prompt))


def test_missing_file_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro"):
        list(records.read(tmp_path / "none.jsonl", Prompt))


def test_appender_resumes_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(records.dumps(prompt(0)) + records.dumps(prompt(1))[:-9])
    with records.Appender(path, Prompt) as sink:
        assert sink.done == {"x/0"}
        sink.append([prompt(1)])
    assert list(records.read(path, Prompt)) == [prompt(0), prompt(1)]


def test_appender_refuses_a_second_row_of_one_id(tmp_path: Path) -> None:
    with records.Appender(tmp_path / "rows.jsonl", Prompt) as sink:
        sink.append([prompt(0)])
        with pytest.raises(ValueError, match="x/0"):
            sink.append([prompt(0)])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    records.write(path, [prompt(0)])

    def broken() -> object:
        yield prompt(1)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        records.write(path, broken())  # type: ignore[arg-type]
    assert list(records.read(path, Prompt)) == [prompt(0)]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    first = "verdicts.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from sirl import records
def rows():
    yield records.Prompt("x/0", "y" * 100_000, "x", "benign")
    os.kill(os.getpid(), signal.SIGKILL)
records.write(Path({str(tmp_path / first)!r}), rows())
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == [f".{first}.tmp"]
    records.write(tmp_path / first, [prompt(0)])
    assert [file.name for file in tmp_path.iterdir()] == [first]
    assert list(records.read(tmp_path / first, Prompt)) == [prompt(0)]


def test_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    path, barrier = tmp_path / "rows.jsonl", threading.Barrier(4)

    def write(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            records.write(path, [prompt(number, str(number) * 50_000)] * 2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    one, other = records.read(path, Prompt)
    assert one == other
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_folder_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = records.digest_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = records.digest_folder(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, second, records.digest_folder(tmp_path)}) == 3

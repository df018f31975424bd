from __future__ import annotations

import os
import socket
from contextlib import chdir
from pathlib import Path

import pytest
from pydantic import ValidationError

from sirl.errors import DataError
from sirl.prompts import FileSource


def read(path: Path, column: str = "prompt") -> list[str]:
    return [p.text for p in FileSource(kind="harmful", path=path, column=column).prompts()]


def test_three_formats_give_the_same_prompts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "Pick a lock"}\n\n{"prompt": "Say \\"hi\\""}\n')
    (tmp_path / "a.csv").write_text('id,prompt\n1,Pick a lock\n2,"Say ""hi"""\n')
    (tmp_path / "a.txt").write_text('Pick a lock\r\n\nSay "hi"')
    expected = ["Pick a lock", 'Say "hi"']
    assert [read(tmp_path / f"a{suffix}") for suffix in (".jsonl", ".csv", ".txt")] == [
        expected
    ] * 3


def test_ids_follow_the_text_and_not_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    before = {p.text: p.id for p in FileSource(kind="benign", path=path).prompts()}
    path.write_text("zero\ntwo\none\n")
    after = {p.text: p.id for p in FileSource(kind="benign", path=path).prompts()}
    assert before.items() <= after.items()


def test_another_column_a_byte_order_mark_and_line_breaks_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffrequest,x\n"two\nlines",1\n'.encode())
    assert read(path, "request") == ["two\nlines"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "holds no prompts"),
        ("a.jsonl", b"\n \n", "holds no prompts"),
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt"\n', "line 2: not JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n["x"]\n', "line 2: not a JSON object"),
        ("a.jsonl", b'{"text": "x"}\n', "line 1: 'prompt' is missing"),
        ("a.jsonl", b'{"prompt": 3}\n', "line 1: 'prompt' is missing or is not text"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"prompt": "caf\xe9"}\n', "not UTF-8.*0xe9"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.csv", b"", "no column 'prompt'"),
        ("a.csv", b"prompt\n", "holds no prompts"),
        ("a.csv", b"text,id\nx,1\n", "no column 'prompt'.*text, id"),
        ("a.csv", b"id,prompt\n1\n", "line 2: 'prompt' is missing"),
        ("a.csv", b'prompt\n"x\n', "not CSV"),
        ("a.csv", b"prompt,label\na, and b,c\n", "line 2: more cells than the 2 columns.*quotes"),
        ("a.csv", b"prompt\na\nb,\n", "line 3: more cells than the 1 columns"),
        ("a.csv", b"prompt,prompt\na,b\n", "two columns 'prompt'"),
        ("a.csv", b"prompt\nhow\0 now\n", "line 2: holds a NUL"),
        ("a.txt", "how now\n".encode("utf-16-le"), "line 1: holds a NUL"),
        ("a.txt", "how now\n".encode("utf-16"), "not UTF-8"),
        (
            "a.jsonl",
            b'{"prompt": "a", "prompt": "b"}\n',
            "line 1: not JSON: the key 'prompt' .*twice",
        ),
    ],
)
def test_a_bad_file_is_named_with_line_and_reason(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_long_cell_of_another_column_is_read_over(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f"prompt,response\nHow now?,{long}\n{long},y\n")
    assert read(tmp_path / "a.csv") == ["How now?", long]


def test_what_may_have_no_end_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "folder.txt").mkdir()
    with socket.socket(socket.AF_UNIX) as listening, chdir(tmp_path):
        listening.bind("socket.txt")
        for name in ("pipe.txt", "zero.txt", "folder.txt", "socket.txt"):
            with pytest.raises(DataError, match=f"{name} is no regular file"):
                read(tmp_path / name)


def test_a_row_that_lacks_the_cell_it_is_chosen_by_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,label\na,safe\nb\n")
    source = FileSource(kind="benign", path=tmp_path / "a.csv", only={"label": "safe"})
    with pytest.raises(DataError, match="line 3: 'label' is missing"):
        list(source.prompts())
    assert read(tmp_path / "a.csv") == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("true", "true"),
        ("true", "True"),
        ("1", "1"),
        ("1.5", "1.5"),
        ('"1"', "1"),
        ("null", "null"),
    ],
)
def test_json_values_are_named_as_the_file_has_them(
    value: str, wanted: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "a", "x": {value}}}\n{{"prompt": "b", "x": "other"}}\n')
    source = FileSource(kind="benign", path=path, only={"x": wanted})
    assert [prompt.text for prompt in source.prompts()] == ["a"]


def test_a_missing_file_and_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none.txt")
    with pytest.raises(ValidationError, match=r"\.jsonl, \.csv, \.txt"):
        FileSource(kind="benign", path=tmp_path / "a.parquet")


def test_only_rows_with_given_values(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,label\nKill a process,safe\nPick a lock,unsafe\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "n": 1}\n{"prompt": "b", "n": 2}\n')
    for name, only, wanted in (
        ("a.csv", {"label": "safe"}, ["Kill a process"]),
        ("a.jsonl", {"n": "2"}, ["b"]),
    ):
        source = FileSource(kind="benign", path=tmp_path / name, only=only)
        assert [prompt.text for prompt in source.prompts()] == wanted
    nothing = FileSource(kind="benign", path=tmp_path / "a.csv", only={"label": "other"})
    with pytest.raises(DataError, match="holds no prompts"):
        list(nothing.prompts())
    absent = FileSource(kind="benign", path=tmp_path / "a.csv", only={"kind": "safe"})
    with pytest.raises(DataError, match=r"no column 'kind'\. Choose from: prompt, label"):
        list(absent.prompts())
    with pytest.raises(ValidationError, match=r"a \.txt file has no columns"):
        FileSource(kind="benign", path=Path("a.txt"), only={"label": "safe"})

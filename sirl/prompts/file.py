"""Prompts out of a file of the user's: JSONL or CSV with a column, or plain lines."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from sirl.errors import DataError
from sirl.prompts.base import Source, text_key

NONE: Mapping[str, str] = {}

MAX_CELL = 2**31 - 1
"""Characters of a CSV cell: csv's own bound of 131,072 is below a long model response."""


def _supported(path: Path) -> Path:
    if path.suffix not in PARSERS:
        raise ValueError(f"{path.name} does not end in one of {', '.join(PARSERS)}")
    return path


class FileSource(Source):
    """A `.jsonl`, `.csv` or `.txt` file in UTF-8; the key is a digest of the text."""

    name: Literal["file"] = "file"
    kind: Literal["harmful", "benign"]
    path: Annotated[Path, AfterValidator(_supported)]
    """Relative to params.yaml."""
    column: str = "prompt"
    """The field or column that holds the prompt; `.txt` has one prompt a line."""
    only: Mapping[str, str] = NONE
    """Other fields or columns and the values that rows must have in them, as `{label: safe}`."""

    @model_validator(mode="after")
    def _columns(self) -> FileSource:
        if self.only and self.path.suffix == ".txt":
            raise ValueError("only: a .txt file has no columns")
        return self

    def texts(self) -> Iterator[tuple[str, str]]:
        if not self.path.is_file():  # a pipe or a device is never read: it may have no end
            what = "is no regular file" if self.path.exists() else "does not exist"
            raise DataError(f"prompt file {self.path} {what}", "Paths are relative to params.yaml")
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            for text in parse(stream, str(self.path), self.path.suffix, self.column, self.only):
                yield text_key(text), text


def parse(
    lines: Iterable[str], where: str, suffix: str, column: str, only: Mapping[str, str] = NONE
) -> Iterator[str]:
    """Yields the prompts in decoded lines of a `.jsonl`, `.csv` or `.txt` file named `where`, those
    of rows that have the values in `only`.

    Raises:
        DataError: The file is empty, not UTF-8 or malformed: file, line and reason are named.
    """
    found = False
    try:
        for text in PARSERS[suffix](_text_lines(lines, where), where, column, only):
            found = True
            yield text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8: {error.reason} (byte 0x{error.object[error.start]:02x})",
            "Save it as UTF-8",
        ) from None
    if not found:
        raise DataError(f"{where} holds no prompts")


def _text_lines(lines: Iterable[str], where: str) -> Iterator[str]:
    """The lines, none of which holds a NUL: text has none, UTF-16 and binary files do."""
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(f"{where}, line {number}: holds a NUL byte", "Save it as UTF-8 text")
        yield line


def _json_lines(
    lines: Iterable[str], where: str, column: str, only: Mapping[str, str]
) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}, line {number}: not a JSON object")
        if any(not _is(row.get(key), value) for key, value in only.items()):
            continue
        yield _text(row.get(column), f"{where}, line {number}", column)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Which of two equal keys was meant, nobody knows."""
    row = dict(pairs)
    if len(row) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key!r} is given twice")
    return row


def _is(found: object, wanted: str) -> bool:
    """Whether a JSON value is the one that is wanted, as the file writes it or as Python does."""
    return found == wanted or wanted in (json.dumps(found), str(found))


def _csv(lines: Iterable[str], where: str, column: str, only: Mapping[str, str]) -> Iterator[str]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(lines, strict=True)
    try:
        names = list(reader.fieldnames or ())
        for name in (column, *only):
            if names.count(name) != 1:
                raise DataError(
                    f"{where}, line 1: {'two columns' if name in names else 'no column'} {name!r}",
                    f"Choose from: {', '.join(names) or '(none)'}",
                )
        for row in reader:
            here = f"{where}, line {reader.line_num}"
            if None in row:
                raise DataError(
                    f"{here}: more cells than the {len(names)} columns of the header",
                    'Put a text that holds a comma in quotes: "one, two"',
                )
            if missing := [name for name in only if row[name] is None]:
                raise DataError(f"{here}: {missing[0]!r} is missing")
            if any(row[key] != value for key, value in only.items()):
                continue
            yield _text(row[column], here, column)
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: not CSV: {error}") from None


def _plain(lines: Iterable[str], where: str, column: str, only: Mapping[str, str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip())


def _text(value: object, where: str, column: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {column!r} is missing or is not text")
    return value


Parser = Callable[[Iterable[str], str, str, Mapping[str, str]], Iterator[str]]
PARSERS: dict[str, Parser] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".txt": _plain,
}

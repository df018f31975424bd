"""What a run reads of this machine: all that params.yaml names by path, by digest.

To DVC a path in params.yaml is a text. It compares these digests with it, so that a model, an
adapter or a file that is overwritten in place is another input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sirl import model_files, records
from sirl.config import Params
from sirl.errors import DataError
from sirl.spec import Spec, named


class Files:
    """Digests of files. A file that the file system calls unchanged is not read again.

    The time of the last change of a file's entry (ctime) is part of that: nobody can set it, so
    other bytes of the same size and modification time are seen.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self._before = known
        self.known: dict[str, Any] = {}
        """What to give to the next one."""

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, or over the files of a model or adapter folder, hex.

        Raises:
            DataError: It is neither file nor folder.
        """
        if path.is_dir():
            parts = model_files.parts(path)
            return records.digest_of({part.name: self._file(part) for part in parts})
        if path.is_file():  # a pipe or a device is never read: it may have no end
            return self._file(path)
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise DataError(
            f"{path}, which params.yaml names, {what}", "Paths are relative to params.yaml"
        )

    def _file(self, path: Path) -> str:
        found = path.stat()  # before it is read: who writes meanwhile changes it
        state = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        key = str(path.resolve())
        *before, digest = self._before.get(key, [None])
        if before != state:
            digest = records.digest_file(path)
        self.known[key] = [*state, digest]
        return str(digest)


def digests(params: Params, files: Files) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> a line `digest path` for all that is named there, in order.

    Raises:
        DataError: Something named is not there.
    """
    return {
        section: {key: lines(value, files) for key, value in values}
        for section, values in params
        if isinstance(values, Spec)
    }


def lines(value: Any, files: Files) -> list[str]:
    """The line of each path in a value of params.yaml.

    Raises:
        DataError: Something named is not there.
    """
    return [f"{files.digest(path)} {path}" for path in named(value)]

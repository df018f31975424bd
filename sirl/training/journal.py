"""What was sampled since the last checkpoint, so that a killed run samples none of it again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sirl import records
from sirl.records import Completion


class Journal:
    """Responses of one process, by request id, in a file that a checkpoint empties.

    Args:
        path: The file; what a killed run left in it is taken up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = records.read(path, Completion, torn_tail="drop") if path.exists() else ()
        self._done = {row.id: row for row in rows}

    def recall(self, ids: Iterable[str]) -> dict[str, Completion] | None:
        """The responses to these requests, or None where one is missing."""
        wanted = list(ids)
        if not all(id in self._done for id in wanted):
            return None
        return {id: self._done[id] for id in wanted}

    def keep(self, completions: Iterable[Completion]) -> None:
        """Writes responses down."""
        rows = list(completions)
        self._done |= {row.id: row for row in rows}
        with records.Appender(self.path, Completion) as sink:
            sink.append(rows)

    def forget(self) -> None:
        """Empties the file: a checkpoint holds what came of it."""
        self._done.clear()
        self.path.unlink(missing_ok=True)

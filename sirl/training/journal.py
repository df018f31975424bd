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
        self._sink: records.Appender | None = None

    def recall(self, ids: Iterable[str]) -> dict[str, Completion] | None:
        """The responses to these requests, or None where one is missing."""
        wanted = list(ids)
        if not all(id in self._done for id in wanted):
            return None
        return {id: self._done[id] for id in wanted}

    def keep(self, completions: Iterable[Completion]) -> None:
        """Writes responses down; those of a batch that a kill left half written are there."""
        rows = {row.id: row for row in completions}
        self._sink = self._sink or records.Appender(self.path, Completion)
        self._sink.append(row for id, row in rows.items() if id not in self._done)
        self._done |= rows

    def forget(self) -> None:
        """Empties the file: a checkpoint holds what came of it."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        self._done.clear()
        self.path.unlink(missing_ok=True)

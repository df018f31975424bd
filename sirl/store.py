"""Where a stage keeps finished work: a file a shard, named by a digest of what decides its rows.

A shard's file appears whole or not at all. So a killed run loses the shards it was in the middle
of, repeats none that is finished, and reads nothing back to know which those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic

from sirl import locks, records
from sirl.errors import DataError
from sirl.records import Row


class Store(Generic[Row]):
    """Rows by the address of their shard.

    Args:
        folder: Of this stage, model and everything else that its shards have in common.
        row_type: A dataclass of `sirl.records`.
    """

    def __init__(self, folder: Path, row_type: type[Row]) -> None:
        self.folder = folder
        self.row_type = row_type

    def locked(self) -> AbstractContextManager[None]:
        """Keeps other runs off.

        Raises:
            DataError: Another run has it, on entering.
        """
        busy = DataError(
            f"another run is at work in {self.folder}", "Wait for it to end, or end it"
        )
        return locks.held(self.folder / "lock", busy)

    def __contains__(self, address: str) -> bool:
        return self._path(address).exists()

    def put(self, address: str, rows: Iterable[Row]) -> None:
        """Keeps the rows of a finished shard."""
        records.write(self._path(address), rows)

    def rows(self, addresses: Iterable[str]) -> Iterator[Row]:
        """All rows of these shards, shard by shard: memory flat in their number."""
        for address in addresses:
            yield from records.read(self._path(address), self.row_type)

    def _path(self, address: str) -> Path:
        return self.folder / f"{address}.jsonl"

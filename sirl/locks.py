"""One process at a time: a file that is locked while it is held."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sirl.errors import SirlError


@contextmanager
def held(path: Path, busy: SirlError) -> Iterator[None]:
    """Holds the lock of a file; it ends with this process, however that ends.

    Args:
        path: The file; it is made, its folder too.
        busy: Raised where another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield

"""Which files and models an artifact was made of: artifacts of different runs are not read
together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sirl import records
from sirl.errors import DataError


def stamp(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its path below the project's root."""
    return {path.relative_to(root).as_posix(): records.digest_file(path) for path in paths}


def check(root: Path, made: Path, of: Mapping[str, str]) -> None:
    """Refuses an artifact that was made of other files than those that are there.

    Args:
        root: The project's root.
        made: The artifact.
        of: What `stamp` said when it was made.

    Raises:
        DataError: A file is missing or another.
    """
    for name, digest in of.items():
        path = root / name
        if not path.is_file() or records.digest_file(path) != digest:
            raise DataError(
                f"artifacts of different runs: {made} was not made of {path} as it is now",
                "Bring all up to date: dvc repro",
            )


def one_model(said: Mapping[Path, object]) -> str:
    """The digest of the one model that all these artifacts are about.

    Args:
        said: Each artifact, with the digest that it names.

    Raises:
        DataError: One is about another model, or names none.
    """
    (first, digest), *others = said.items()
    for made, other in others:
        if other != digest or not isinstance(other, str):
            raise DataError(
                f"artifacts of different models: {made} is about {_short(other)}, "
                f"{first} about {_short(digest)}",
                "Bring all up to date: dvc repro",
            )
    return str(digest)


def _short(digest: object) -> str:
    return digest[:12] if isinstance(digest, str) else "none that it names"

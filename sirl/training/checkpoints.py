"""Checkpoints that are whole or not there: a manifest of hashes, written last, says which are
complete."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from sirl import model_files, records
from sirl.errors import DataError

log = logging.getLogger(__name__)

MANIFEST = "complete.json"


def seal(checkpoint: Path) -> None:
    """Writes the manifest of a checkpoint whose files are all written."""
    files = {
        file.relative_to(checkpoint).as_posix(): records.digest_file(file)
        for file in checkpoint.rglob("*")
        if file.is_file() and file.name != MANIFEST
    }
    records.write_json(checkpoint / MANIFEST, files)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its manifest and every file matches it."""
    try:
        files = records.read_json(checkpoint / MANIFEST)
    except DataError:
        return False
    return all(
        (checkpoint / name).is_file() and records.digest_file(checkpoint / name) == digest
        for name, digest in files.items()
    )


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`; torn or tampered ones are said and removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    for checkpoint in found:
        if is_whole(checkpoint):
            return checkpoint
        log.warning("checkpoint %s is torn or was changed; the one before is used", checkpoint.name)
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path | None) -> int:
    """The optimiser step of a checkpoint; 0 for none."""
    return int(checkpoint.name.split("-")[1]) if checkpoint else 0


def export(checkpoint: Path, base: Path, target: Path) -> None:
    """Puts a checkpoint's weights beside the base model's tokenizer and config in a new folder."""
    model_files.copy(base, target, with_weights=False)
    for file in checkpoint.iterdir():
        if model_files.is_of_weights(file.name):
            shutil.copyfile(file, target / file.name)

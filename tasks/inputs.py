"""Stage inputs: the digests of all that params.yaml names by path, for DVC to compare.

It always runs, first and without MLflow, and takes a moment: what has not changed is not read.
"""

from __future__ import annotations

from typing import Any

from sirl import config, inputs, records
from sirl.config import Params
from sirl.layout import Layout
from tasks.stage import process

STAGE = "inputs"
"""To DVC it has always changed; what follows from that is seen at the stages that read it."""


def write(params: Params, layout: Layout, *, every_byte: bool = False) -> None:
    """Writes the digests; paths are relative to the working directory, the project root.

    Args:
        params: The settings.
        layout: Where to.
        every_byte: Read files too that the file system calls unchanged.

    Raises:
        DataError: Something named is not there.
    """
    files = inputs.Files({} if every_byte else _known(layout))
    found = inputs.digests(params, files)
    records.write_json(layout.known_inputs, files.known)
    records.write_json(layout.inputs, found)


def read(value: Any, layout: Layout) -> list[str]:
    """What a part of the settings names, by digest: it belongs into the key of finished work.

    Raises:
        DataError: Something named is not there.
    """
    return inputs.lines(value, inputs.Files(_known(layout)))


def _known(layout: Layout) -> dict[str, Any]:
    path = layout.known_inputs
    return dict(records.read_json(path)) if path.exists() else {}


def run() -> None:
    """The stage."""
    layout = Layout()
    write(config.load(layout.params), layout)


if __name__ == "__main__":
    raise SystemExit(process(STAGE, run))

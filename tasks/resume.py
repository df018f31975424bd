"""When the state goes from which a stage resumes: when DVC has what the stage made, and not before.

A stage that ends well may still be lost, if DVC is killed before it has recorded it. So the stage
only marks its state as finished, and whoever sees that DVC has it, or that the stage begins anew
with other inputs, drops it. The state of a stage that did not end is never dropped.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sirl.layout import Layout

FINISHED = "finished"


def begin(layout: Layout, stage: str, key: str) -> Path:
    """The folder of a stage's state under a key; finished ones under other keys go."""
    state = layout.state(stage, key)
    for other in _finished(layout, stage):
        if other != state:
            shutil.rmtree(other, ignore_errors=True)
    return state


def finish(state: Path) -> None:
    """All that the stage makes is in its outs."""
    state.mkdir(parents=True, exist_ok=True)  # a method that does not train has none
    (state / FINISHED).touch()


def drop(layout: Layout, stage: str) -> None:
    """DVC has what the stage made: its finished state goes."""
    for state in _finished(layout, stage):
        shutil.rmtree(state, ignore_errors=True)


def _finished(layout: Layout, stage: str) -> list[Path]:
    any_key = layout.state(stage, "*")
    return [mark.parent for mark in any_key.parent.glob(f"{any_key.name}/{FINISHED}")]

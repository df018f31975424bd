"""A few kills at random of runs whose stages are stand-ins; `make chaos` does it for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.loop import REPO, Chaos


def test_killed_and_gone_on_from_ends_in_the_same_outs(
    project: Path, environment: pytest.MonkeyPatch
) -> None:
    chaos = Chaos(project, ["--no-promote"], seed=5, code=REPO, longest=1.0)
    chaos.finish()
    undisturbed = chaos.outs()
    assert "gate/decision.json" in undisturbed
    chaos.forget()
    chaos.run(3, undisturbed)
    assert chaos.runs >= 4

"""The stage graph, read out of DVC, which owns it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

from flows import dvc
from flows.pipeline import failure
from flows.workplace import Workplace
from sirl import config
from sirl.errors import ConfigError

Graph = Mapping[str, tuple[str, ...]]
"""Stage -> the stages it needs directly; in an order in which they can run."""


def read(place: Workplace, target: str | None = None) -> Graph:
    """The graph of all stages, or of a stage and all it needs.

    Raises:
        ConfigError: There is no such stage; the choices are named.
        SirlError: DVC cannot read the project.
    """
    check(place, target)
    dot = _dvc(place, "dag", "--dot", *([target] if target else []))
    edges = re.findall(r'"(.+)" -> "(.+)";', dot)
    stages = list(dict.fromkeys(re.findall(r'^"([^"]+)";$', dot, flags=re.MULTILINE)))
    needs = {
        stage: tuple(upstream for upstream, below in edges if below == stage) for stage in stages
    }
    return {stage: needs[stage] for stage in TopologicalSorter(needs).static_order()}


def stale(place: Workplace) -> frozenset[str]:
    """The stages whose own inputs or outs have changed since they last ran.

    Stage `inputs`, which always runs, is none of them: what it would write is looked at first.

    Raises:
        SirlError: Something that params.yaml names is not there, or DVC cannot read the project.
    """
    _output(place, [sys.executable, "-m", "tasks.inputs"], "python -m tasks.inputs")
    return frozenset(json.loads(_dvc(place, "status", "--json"))) - {"inputs"}


def below(graph: Graph, stages: frozenset[str]) -> frozenset[str]:
    """The stages of a graph that need one of `stages`, directly or not, without these."""
    reached = set(stages)
    for stage, needs in graph.items():
        if reached.intersection(needs):
            reached.add(stage)
    return frozenset(reached - stages)


def check(place: Workplace, target: str | None) -> None:
    """Refuses a target that dvc.yaml does not hold.

    Raises:
        ConfigError: There is no such stage; the choices are named.
    """
    stages = names(place)
    choices = dict.fromkeys([*stages, *(stage.partition("@")[0] for stage in stages)])
    if target is not None and target not in choices:
        raise ConfigError(f"unknown stage {target!r}", f"Choose from: {', '.join(choices)}")


def names(place: Workplace) -> list[str]:
    """Every stage of dvc.yaml, a `foreach` resolved into its members, without asking DVC."""
    stages = config.read_yaml(place.root / "dvc.yaml")["stages"]
    return [
        f"{name}@{item}" if item else name
        for name, stage in stages.items()
        for item in stage.get("foreach", [""])
    ]


def _dvc(place: Workplace, *words: str) -> str:
    dvc.mend(place.root)
    return _output(place, [*dvc.COMMAND, *words], "dvc " + " ".join(words))


def _output(place: Workplace, command: Sequence[str], said: str) -> str:
    done = subprocess.run(
        command,
        cwd=place.root,
        env=place.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise failure("", done.stderr.splitlines(), f"See what it says: {said}")
    return done.stdout

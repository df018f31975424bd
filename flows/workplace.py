"""Where one run works: the checkout itself, or a worktree when its settings differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows import project, settings, turn, worktree
from sirl import config, records
from sirl.capability import sandbox
from sirl.config import Params
from sirl.layout import Layout
from sirl.models import resolve_device


@dataclass(frozen=True)
class Workplace:
    """A folder with code, params.yaml and artifacts, and what its processes run with.

    Attributes:
        root: The folder.
        params: Its validated params.yaml.
        environment: Environment variables of everything that runs in it.
    """

    root: Path
    params: Params
    environment: Mapping[str, str]

    @property
    def layout(self) -> Layout:
        """Its artifact paths, absolute."""
        return Layout(self.root)

    @property
    def log(self) -> Path:
        """All that the stages of this run say."""
        return self.layout.local / "logs" / f"{self.environment['SIRL_PIPELINE_RUN']}.log"


@contextmanager
def opened(
    checkout: Path,
    preset: str | None,
    overrides: Sequence[str],
    *,
    planning: bool = False,
    **variables: str,
) -> Iterator[Workplace]:
    """The place of a run with these settings, held until the run ends.

    Args:
        checkout: The project root.
        preset: Name or file of a preset.
        overrides: `dotted.key=value` settings.
        planning: Nothing will run, so the machine need not be up to it.
        variables: Further environment variables.

    Raises:
        ModelError: The settings insist on a GPU and this machine has none.
        SandboxError: A benchmark runs what the model writes, and this machine cannot isolate it.
        SirlError: The settings are not valid, or the same settings are running already.
    """
    values = settings.effective(checkout, preset, overrides)
    params = config.validate(values, where="params.yaml")
    if not planning:
        if params.runtime.device == "cuda":
            resolve_device("cuda")
        if any(benchmark.runs_answers for benchmark in params.capability.benchmarks):
            sandbox.check()
    environment = project.environment(checkout, **variables)
    with ExitStack() as held:
        root = checkout
        if preset or overrides:
            key = records.digest_json(params.model_dump(mode="json"))[:12]
            place = worktree.planned if planning else worktree.checkout
            root = held.enter_context(place(checkout, values, key))
        if not planning:
            held.enter_context(turn.taken(root))
        yield Workplace(root, params, environment)

"""Any task of lm-evaluation-harness, driven by our Generator.

The packaged benchmarks do not go through it: its index of tasks alone takes seconds to build, and
their items are simpler said directly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from sirl import strict_yaml
from sirl.capability.base import Benchmark
from sirl.errors import ConfigError, MissingPackageError, ServiceError
from sirl.generation import Generator
from sirl.records import CapabilityItem

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


class LMEval(Benchmark):
    """A task by its name in lm-eval (`arc_easy`, `gsm8k`), or by the path of its YAML file."""

    metric: ClassVar[str] = "as the task defines it"

    name: Literal["lm_eval"] = "lm_eval"
    task: str
    score: str = "acc"
    """The metric of the task that is an item's score, with its filter where it has several:
    `acc_norm`, `exact_match,flexible-extract`."""
    num_fewshot: NonNegativeInt | None = None
    """The task's own number by default."""
    limit: PositiveInt | None = None
    """Items of the task, or of each of its subtasks."""

    @property
    def label(self) -> str:
        return f"lm_eval:{self.task}"

    def reads(self) -> Iterator[Path]:
        """See `Spec.reads`: a task's YAML file, the code beside it and the files it names."""
        if self.task.endswith(".yaml"):
            yield from read_by(Path(self.task))

    def run(self, generator: Generator) -> Iterator[CapabilityItem]:
        """See `Benchmark.run`.

        Raises:
            ConfigError: lm-eval has no such task, or the task no such metric, or it runs what the
                model writes.
            ServiceError: The task's data cannot be had.
        """
        try:
            from lm_eval import simple_evaluate
            from lm_eval.tasks import TaskManager
        except ImportError:
            raise MissingPackageError("lm-eval", f"benchmark {self.label}") from None
        from sirl.capability.lm_eval_model import GeneratorLM

        manager = TaskManager(include_defaults=not self.task.endswith(".yaml"))
        if unsafe := self._declared_unsafe(manager):  # to load it runs code that it fetches
            raise _unguarded(unsafe)
        tasks = self._load(manager)
        for task in tasks:
            if runs_answers(task):
                raise _unguarded(task.config.task)
        results = simple_evaluate(
            GeneratorLM(generator),
            tasks=tasks,
            task_manager=manager,
            num_fewshot=self.num_fewshot,
            limit=self.limit,
            bootstrap_iters=0,
        )
        for subtask, samples in results["samples"].items():
            yield from self._items(subtask, samples)

    def _declared_unsafe(self, manager: TaskManager) -> str | None:
        """The task, this one or one in its group, whose YAML says that it runs answers."""
        if self.task.endswith(".yaml"):
            files = (file for file in read_by(Path(self.task)) if file.suffix == ".yaml")
            said = dict(pair for file in files for pair in strict_yaml.scalars(file))
            return said.get("task") if said.get("unsafe_code", "").lower() == "true" else None
        waiting, seen = [self.task], set[str]()
        while waiting:
            name = waiting.pop()
            if name in seen or name not in manager.task_index:
                continue
            seen.add(name)
            entry = manager.task_index[name]
            config = entry.cfg or {}
            if config.get("unsafe_code"):
                return name
            below = config["task"] if isinstance(config.get("task"), list) else []
            waiting += [child for child in below if isinstance(child, str)]
            waiting += entry.tags if entry.kind.name == "TAG" else ()
        return None

    def _load(self, manager: TaskManager) -> list[Any]:
        """The task objects, their data loaded."""
        if self.task.endswith(".yaml"):
            strict_yaml.check(Path(self.task))
        try:
            return list(manager.load([self.task])["tasks"].values())
        except KeyError as error:
            raise ConfigError(
                f"lm-eval has no task {self.task!r}: {error}", "List them: lm-eval ls tasks"
            ) from error
        except Exception as error:  # the hub client raises a dozen unrelated kinds
            raise ServiceError(
                f"the data of lm-eval task {self.task} could not be loaded: {error}",
                "Check the network and HF_TOKEN, or choose packaged benchmarks",
            ) from error

    def _items(self, subtask: str, samples: list[dict[str, Any]]) -> Iterator[CapabilityItem]:
        metric, _, chosen = self.score.partition(",")
        found = [s for s in samples if metric in s and s["filter"] == (chosen or "none")]
        if not found:
            names = sorted({f"{m},{s['filter']}" for s in samples for m in s["metrics"]})
            raise ConfigError(
                f"lm-eval task {subtask} has no metric {self.score!r}",
                f"Set score to one of: {', '.join(names)}",
            )
        for sample in found:
            yield self.item(f"{subtask}-{sample['doc_id']}", float(sample[metric]))


def _unguarded(task: str) -> ConfigError:
    return ConfigError(
        f"lm-eval task {task} would run what the model writes, unguarded",
        "Choose another: `sirl` runs that in a sandbox alone",
    )


FOLDERS = ("dataset_path", "data_dir")
"""Keys of a task that may name a folder of data."""


def read_by(task: Path) -> list[Path]:
    """The YAML file of a task, those that it includes, all code beside them, and the data that they
    name, once each.

    Raises:
        ConfigError: A YAML file cannot be read.
    """
    found: dict[Path, None] = {}
    waiting = [task]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found[file] = None
        if file.suffix != ".yaml":
            continue
        found.update(dict.fromkeys(sorted(file.parent.glob("*.py"))))
        for key, text in strict_yaml.scalars(file):
            # lm-eval looks beside the file, `datasets` from the working directory, by patterns too.
            for name in {str(file.parent / text), text}:
                for path in map(Path, sorted(glob(name))):  # noqa: PTH207 - it may be absolute
                    if path.is_file():
                        waiting.append(path)
                    elif key in FOLDERS:
                        waiting += sorted(p for p in path.rglob("*") if p.is_file())
    return list(found)


RUNS = re.compile(r"(?<![.\w])(eval|exec|parse_expr|sympify)\(")


def runs_answers(task: Any) -> bool:
    """Whether a task of lm-eval says that it runs answers, or has code beside its scoring functions
    that looks like it."""
    config = task.config
    metrics = (metric["metric"] for metric in config.metric_list or ())
    functions = [f for f in (config.process_results, *metrics) if hasattr(f, "__code__")]
    folders = {Path(function.__code__.co_filename).parent for function in functions}
    return bool(config.unsafe_code) or any(
        RUNS.search(file.read_text(encoding="utf-8")) for f in folders for file in f.glob("*.py")
    )

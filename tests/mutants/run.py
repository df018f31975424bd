"""Which faults in the code that decides would no test notice? `make mutants` says.

Each mutant of the modules below is put into a copy of the working tree, and the tests of its module
run there, in a child of this process, which has torch and its kin imported already: a mutant costs
about a second. What is known already is kept in .sirl/mutants.jsonl, so that a run that was cut
goes on.

Not mutmut, which changes nothing at module level, in class bodies and in decorated functions, where
half of our decisions stand; not cosmic-ray, which starts a process a mutant: a quarter of a day of
importing torch.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import json
import math
import os
import py_compile
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from operators import Mutant, mutants

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
KNOWN = ROOT / ".sirl" / "mutants.jsonl"
TRAINING = "tests/training/test_golden.py"
KEYS = "tests/tasks/test_keys.py"

TARGETS: dict[str, tuple[str, ...]] = {
    # module, or module::function -> the tests that must notice; quick ones alone
    "sirl/entropy.py": ("tests/sirl/test_entropy.py",),
    "sirl/evaluation.py": ("tests/sirl/test_evaluation.py",),
    "sirl/gate.py": ("tests/sirl/test_gate.py",),
    "sirl/judging.py": ("tests/sirl/test_judging.py",),
    "sirl/lineage.py": ("tests/sirl/test_lineage.py",),
    "sirl/statistics.py": ("tests/sirl/test_statistics.py", "tests/sirl/test_judging.py"),
    "sirl/store.py": ("tests/sirl/test_store.py",),
    "sirl/judges/asking.py": ("tests/judges/test_asking.py",),
    "sirl/judges/base.py": ("tests/judges/test_refusal.py", "tests/judges/test_asking.py"),
    "sirl/judges/harmbench.py": ("tests/judges/test_asking.py",),
    "sirl/judges/llama_guard.py": ("tests/judges/test_asking.py",),
    "sirl/judges/pair_rating.py": ("tests/judges/test_asking.py",),
    "sirl/judges/refusal.py": ("tests/judges/test_refusal.py",),
    "sirl/judges/strongreject.py": ("tests/judges/test_asking.py",),
    "sirl/prompts/clean.py": ("tests/prompts/test_clean.py", "tests/prompts/test_exclusion.py"),
    "sirl/prompts/similarity.py": ("tests/prompts/test_similarity.py",),
    "sirl/prompts/splits.py": ("tests/prompts/test_splits.py",),
    "sirl/training/anchor.py": ("tests/training/test_anchor.py", TRAINING),
    "sirl/training/checkpoints.py": ("tests/training/test_checkpoints.py",),
    "sirl/training/guards.py": ("tests/training/test_guards.py",),
    "sirl/training/rewards.py": ("tests/training/test_rewards.py",),
    "sirl/training/scoring.py": (
        "tests/training/test_scoring.py",
        "tests/training/test_anchor.py",
    ),
    "sirl/training/trainer.py": (TRAINING, "tests/training/test_scoring.py"),
    "sirl/training/sirl.py::_trl_config": (TRAINING,),
    "sirl/training/loop.py::arguments": (TRAINING,),
    "tasks/attack.py::_context": (KEYS,),
    "tasks/capability.py::_context": (KEYS,),
    "tasks/judge.py::_context": (KEYS,),
    "tasks/profile.py::_context": (KEYS,),
    "tasks/promote.py": ("tests/tasks/test_promote.py",),
    "tasks/train.py::_key": (KEYS,),
}
WARM = "pytest pytest_timeout numpy yaml pydantic torch transformers peft datasets trl scipy.stats"
LEAST_SECONDS = 15.0
"""Of CPU for a mutant's tests; where they take long undisturbed, four times that."""
PATIENCE = 8
"""Seconds on the clock for one of CPU: a mutant may also wait for what never comes."""


@dataclass(frozen=True)
class Job:
    """Tests of a mutant, or of the code as it is; `key` says whether their result is known."""

    mutant: Mutant | None
    tests: tuple[str, ...]
    key: str
    limit: float


def main() -> int:
    """Runs, tells, and fails where a mutant survives that is not listed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many, by a fixed seed")
    parser.add_argument("--only", nargs="*", default=[""], help="modules whose path holds this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    found = [
        (mutant, tests)
        for target, tests in TARGETS.items()
        if any(part in target for part in options.only)
        for mutant in _mutants(target)
    ]
    if options.sample:
        found = random.Random(11).sample(found, options.sample)
    listed = _listed()
    with _trees(options.jobs) as trees:
        for name in WARM.split():
            __import__(name)
        undisturbed = _undisturbed(trees, {tests for _, tests in found})
        jobs = [
            Job(mutant, tests, _key(mutant, tests), max(LEAST_SECONDS, 4 * undisturbed[tests]))
            for mutant, tests in found
        ]
        results = _known()
        todo = [job for job in jobs if job.key not in results]
        KNOWN.parent.mkdir(exist_ok=True)
        with KNOWN.open("a") as stream:
            for done, (job, result, _) in enumerate(_run(trees, todo), 1):
                results[job.key] = result
                stream.write(json.dumps([job.key, result]) + "\n")
                stream.flush()
                if sys.stderr.isatty() or done % 50 == 0:
                    sys.stderr.write(f"{done} of {len(todo)}\n")
    return _tell([(job.mutant, results[job.key]) for job in jobs if job.mutant], listed)


def _mutants(target: str) -> list[Mutant]:
    module, _, function = target.partition("::")
    return mutants(module, (ROOT / module).read_text(), function)


def _key(mutant: Mutant, tests: Sequence[str]) -> str:
    """Digest of a mutant and the files of its tests, with what they share."""
    files = {Path(test).parent / "conftest.py" for test in tests} | {Path("tests/conftest.py")}
    read = [mutant.source, *((ROOT / test).read_text() for test in tests)]
    read += [(ROOT / file).read_text() for file in sorted(files) if (ROOT / file).exists()]
    return hashlib.sha256(json.dumps([mutant.key, read]).encode()).hexdigest()[:24]


def _known() -> dict[str, str]:
    lines = KNOWN.read_text().splitlines() if KNOWN.exists() else []
    return dict(json.loads(line) for line in lines if line.endswith("]"))


@contextlib.contextmanager
def _trees(count: int) -> Iterator[list[Path]]:
    """Copies of the working tree, one for each mutant that runs at a time."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        first, *others = trees = [Path(folder) / str(index) for index in range(count)]
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (first / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, first / name)
        # By hash: by time and size, as is usual, a mutant could pass for the module.
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        for package in ("sirl", "tasks", "flows"):
            compileall.compile_dir(first / package, quiet=2, invalidation_mode=by_hash)
        for tree in others:
            shutil.copytree(first, tree)
        yield trees


def _undisturbed(
    trees: Sequence[Path], chosen: set[tuple[str, ...]]
) -> dict[tuple[str, ...], float]:
    """Seconds of CPU that tests take on the code as it is. They must pass."""
    jobs = [Job(None, tests, "", 600.0) for tests in sorted(chosen)]
    seconds = {}
    for job, result, took in _run(trees, jobs):
        if result != "survived":
            raise SystemExit(f"mutants: {' '.join(job.tests)} do not pass on the code as it is")
        seconds[job.tests] = took
    return seconds


def _run(trees: Sequence[Path], jobs: Sequence[Job]) -> Iterator[tuple[Job, str, float]]:
    """Each job with its result (killed, timeout, survived) and seconds of CPU, as they end."""
    waiting, free = list(reversed(jobs)), list(trees)
    running: dict[int, tuple[Job, Path, float]] = {}
    try:
        while waiting or running:
            while waiting and free:
                job, tree = waiting.pop(), free.pop()
                running[_start(job, tree)] = job, tree, time.monotonic()
            for pid, (job, tree, started) in list(running.items()):
                late = time.monotonic() - started > PATIENCE * job.limit
                if late:
                    os.killpg(pid, signal.SIGKILL)
                ended, status, usage = os.wait4(pid, 0 if late else os.WNOHANG)
                if ended:
                    with contextlib.suppress(ProcessLookupError):  # what its tests left running
                        os.killpg(pid, signal.SIGKILL)
                    del running[pid]
                    free.append(tree)
                    if job.mutant:
                        shutil.copy2(ROOT / job.mutant.module, tree / job.mutant.module)
                    late |= os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
                    result = "timeout" if late else "killed" if status else "survived"
                    yield job, result, usage.ru_utime + usage.ru_stime
            time.sleep(0.02)
    finally:
        for pid in running:
            os.killpg(pid, signal.SIGKILL)


def _start(job: Job, tree: Path) -> int:
    """Forks a child that runs the tests in a tree with the mutant in its place."""
    if job.mutant:
        (tree / job.mutant.module).write_text(job.mutant.source)
    if pid := os.fork():
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(job.limit), resource.RLIM_INFINITY))
        os.chdir(tree)
        sys.path[0] = str(tree)  # in the place of this folder
        quiet = os.open(os.devnull, os.O_RDWR)
        if not os.environ.get("MUTANTS_LOUD"):
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
        os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        os.environ |= {"PYTHONDONTWRITEBYTECODE": "1"} if job.mutant else {}
        sys.dont_write_bytecode = job.mutant is not None
        import pytest

        flags = ["-x", "-q", "-p", "no:randomly", f"--basetemp={tree}/.tmp"]
        code = int(pytest.main([*flags, *job.tests]))
    finally:
        os._exit(code)


def _listed() -> dict[tuple[str, ...], str]:
    """The survivors that are known, each with why no test can notice it."""
    rows = yaml.safe_load(EQUIVALENT.read_text()) if EQUIVALENT.exists() else None
    return {
        (module, row["in"], row["was"], row["becomes"], row.get("nth", 0)): row["why"]
        for module, listed in (rows or {}).items()
        for row in listed
    }


def _tell(results: Sequence[tuple[Mutant, str]], listed: dict[tuple[str, ...], str]) -> int:
    """Prints a table and what is amiss. Returns the exit code."""
    counts: dict[str, Counter[str]] = {}
    new = []
    for mutant, result in results:
        if result == "survived":
            result = "equivalent" if mutant.key in listed else "survived"
            new += [mutant] if result == "survived" else []
        counts.setdefault(mutant.module, Counter())[result] += 1
    counts["all"] = sum(counts.values(), Counter())
    kinds = ("killed", "timeout", "equivalent", "survived")
    lines = [f"{'module':34}" + "".join(f"{kind:>12}" for kind in (*kinds, "noticed"))]
    for module, row in counts.items():
        noticed = 100 * (row["killed"] + row["timeout"]) / max(1, row.total())
        lines.append(f"{module:34}" + "".join(f"{row[k]:12}" for k in kinds) + f"{noticed:10.1f} %")
    lines += [f"survived: {mutant}" for mutant in new]
    noticed_now = {mutant.key: str(mutant) for mutant, result in results if result != "survived"}
    stale = [noticed_now[key] for key in listed if key in noticed_now]
    lines += [f"listed as equivalent, but noticed: {mutant}" for mutant in stale]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if new or stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

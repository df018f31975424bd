"""Answers that a model writes, scored in the sandbox: as reasoning-gym would, and safely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sirl import packaged
from sirl.capability import ReasoningGym, reasoning, sandbox
from sirl.errors import DataError
from sirl.records import Completion

HOSTILE = {
    "print('full')": None,
    "[print('full'), 1]": None,
    "__import__('os').write(1, b'full')": None,
    "exit(0)": "exited",
    "__import__('os')._exit(0)": "exited",
    "__import__('os').kill(0, 9) or __import__('os').kill(-1, 9)": None,
    "__import__('sys').stdout.close()": "exited",
    "9**9**9": "timed_out",
    "{0!r}": None,
}


@pytest.fixture(autouse=True)
def isolated() -> None:
    try:
        sandbox.check()
    except sandbox.SandboxError as error:
        pytest.skip(f"no isolation: {error}")


def test_a_hostile_answer_decides_no_other_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reasoning, "LIMITS", sandbox.Limits(seconds=2))
    mark = tmp_path / "ran"
    hostile = {f"__import__('pathlib').Path({str(mark)!r}).touch()": None, **HOSTILE}
    for task in ("string_insertion", "countdown"):
        item = packaged.reasoning_gym(task, 1, 0)[0]
        pairs = [(answer, item) for bad in hostile for answer in (bad, str(item["answer"]))]
        ends = list(ReasoningGym(task=task).scored(pairs))
        assert [(e.how, e.stdout) for e in ends[1::2]] == [("completed", "full")] * len(hostile)
        assert not [e for e in ends[::2] if e.stdout == "full"]
        if task == "string_insertion":  # it evaluates the answer as it stands
            got = [None if e.how == "completed" else e.how for e in ends[::2]]
            assert got == [*hostile.values()]
        assert not mark.exists()


def test_every_task_scores_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_gym.factory import DATASETS, create_dataset

    tasks = sorted(DATASETS.keys() - {"composite"})  # which is others, by options
    # One worker for all, where a benchmark has one for its own.
    setup = f"""
import base64, os, pickle, sys
from reasoning_gym.factory import create_dataset
tasks = {{task: create_dataset(task, size=1) for task in {tasks}}}
class data:
    score_answer = lambda answer, item: tasks[item["task"]].score_answer(answer, item)
"""
    monkeypatch.setattr(reasoning, "SETUP", setup.replace("{", "{{").replace("}", "}}"))
    pairs: list[tuple[str, dict[str, Any]]] = []
    expected = []
    for task in tasks:
        data = create_dataset(task, size=2, seed=0)
        first, second = ({**item, "task": task} for item in data)
        for answer in (str(first["answer"]), str(second["answer"])):
            pairs.append((answer, first))
            try:
                full = data.score_answer(answer, first) >= 1
            except Exception:
                expected.append(("exited", ""))
            else:
                expected.append(("completed", "full" if full else "less"))
    found = [(e.how, e.stdout) for e in ReasoningGym(task=tasks[0]).scored(pairs)]
    differ = [
        (p[1]["task"], f, e) for p, f, e in zip(pairs, found, expected, strict=True) if f != e
    ]
    assert differ == []
    assert 0.3 < sum(end == ("completed", "full") for end in expected) / len(pairs) < 0.9


def test_a_scorer_that_fails_on_its_own_answer_is_no_low_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reasoning, "SETUP", "{!r}\nimport sys, os, base64, pickle")
    item = packaged.reasoning_gym("chain_sum", 1, 0)[0]
    with pytest.raises(DataError, match=r"chain_sum cannot score its own answer: NameError"):
        list(ReasoningGym(task="chain_sum").scored([("1", item)]))


def test_an_unscored_answer_says_why() -> None:
    class Model:
        def generate(self, requests: Any, sampling: Any, *, seed: int = 0) -> Any:
            return (Completion(r.id, "exit()", (), (), "stop", 1) for r in requests)

    (item,) = ReasoningGym(task="string_insertion", count=1).run(Model())  # type: ignore[arg-type]
    assert (item.score, item.detail) == (0.0, {"answer": "exit()", "unscored": "exited"})


def test_no_isolation_is_said_before_the_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = ("sh", "-c", 'echo \'{"refused": "unshare: no"}\'')
    monkeypatch.setattr(sandbox, "COMMAND", refuse)
    with pytest.raises(sandbox.SandboxError, match="unshare: no"):
        ReasoningGym(task="chain_sum", count=1).run(None)  # type: ignore[arg-type]
    assert not ReasoningGym(task="chain_sum", choices=2).runs_answers

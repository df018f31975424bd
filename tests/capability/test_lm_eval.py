"""lm-eval's own machinery over our generator, on tasks with local data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sirl.capability import LMEval
from sirl.errors import ConfigError, ServiceError
from sirl.generation import Generator, TransformersBackend

ROWS = [
    {"question": "Bees make", "choices": ["honey", "glass", "iron"], "answer": 0},
    {"question": "Rain is", "choices": ["dry", "wet", "hot"], "answer": 1},
    {"question": "The cat says", "choices": ["moo", "woof", "meow"], "answer": 2},
    {"question": "Two and two make", "choices": ["four", "six", "ten"], "answer": 0},
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
num_fewshot: 0
"""
CHOICE = """
task: local_choice
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ANSWER = """
task: local_answer
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 3, do_sample: false}
metric_list: [{metric: exact_match}]
"""


def write_task(folder: Path, body: str) -> str:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = folder / "task.yaml"
    path.write_text(body + COMMON.format(data=data, cache=folder / "cache"))
    return str(path)


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return TransformersBackend(dtype="float32").open(tiny_model, "cpu")


def test_a_choice_is_scored_as_our_own_likelihoods_say(
    generator: Generator, tmp_path: Path
) -> None:
    items = list(LMEval(task=write_task(tmp_path, CHOICE)).run(generator))
    expected = []
    for row in ROWS:
        pairs = [(str(row["question"]), f" {choice}") for choice in row["choices"]]  # type: ignore[attr-defined]
        found = [score for score, _ in generator.loglikelihoods(pairs)]
        expected.append(float(found.index(max(found)) == row["answer"]))
    assert [item.score for item in items] == expected
    assert [item.id.rpartition("/")[2] for item in items] == [f"local_choice-{n}" for n in range(4)]


def test_limit_and_another_metric(generator: Generator, tmp_path: Path) -> None:
    benchmark = LMEval(task=write_task(tmp_path, CHOICE), limit=2, score="acc_norm")
    assert len(list(benchmark.run(generator))) == 2


def test_generated_answers_are_cut_and_scored(generator: Generator, tmp_path: Path) -> None:
    benchmark = LMEval(task=write_task(tmp_path, ANSWER), score="exact_match")
    items = list(benchmark.run(generator))
    assert {item.score for item in items} == {0.0}  # noise answers nothing


def test_a_metric_the_task_has_not_is_said(generator: Generator, tmp_path: Path) -> None:
    benchmark = LMEval(task=write_task(tmp_path, CHOICE), score="f1")
    with pytest.raises(ConfigError, match=r"no metric 'f1'.*acc,none"):
        list(benchmark.run(generator))


def test_data_that_cannot_be_had_is_one_line(generator: Generator, tmp_path: Path) -> None:
    task = write_task(tmp_path, CHOICE)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(ServiceError, match="could not be loaded") as caught:
        list(LMEval(task=task).run(generator))
    assert "\n" not in str(caught.value)


def test_a_task_that_is_not_there_is_said(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml is no file"):
        list(LMEval(task=str(tmp_path / "none.yaml")).run(generator))


def test_stop_texts_cut_at_the_first() -> None:
    from sirl.capability.lm_eval_model import _cut, _sampling

    assert _cut("a. b\nQ: c", ["Q:", "\n"]) == "a. b"
    assert _cut("a", "b") == _cut("a", []) == "a"
    assert _sampling({"do_sample": False, "temperature": 0.7}).temperature == 0.0
    assert _sampling({"do_sample": True, "temperature": 0.7}).temperature == 0.7
    assert _sampling({}).max_new_tokens == 256


SCORED = ANSWER.replace("metric_list", "process_results: !function scoring.score\nmetric_list")
HARMLESS = "def score(doc, results):\n    return {'exact_match': len(results) - 1}\n"


@pytest.mark.parametrize(
    "helper", ["", "x = eval('1')", "from sympy import *\ny = parse_expr('1')", "exec('')"]
)
def test_a_task_that_runs_answers_is_refused(
    generator: Generator, tmp_path: Path, helper: str
) -> None:
    (tmp_path / "scoring.py").write_text(HARMLESS)
    (tmp_path / "helper.py").write_text(helper)
    benchmark = LMEval(task=write_task(tmp_path, SCORED), score="exact_match")
    if not helper:
        assert {item.score for item in benchmark.run(generator)} == {0.0}
        return
    with pytest.raises(ConfigError, match="local_answer would run what the model writes"):
        list(benchmark.run(generator))


def test_a_task_that_says_it_runs_answers_is_refused_before_it_is_loaded(
    generator: Generator, tmp_path: Path
) -> None:
    benchmark = LMEval(task=write_task(tmp_path, ANSWER + "unsafe_code: true\n"))
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(ConfigError, match="local_answer would run what the model writes"):
        list(benchmark.run(generator))


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ("humaneval", "humaneval"),
        ("humaneval_instruct", "humaneval_instruct"),
        ("mbpp", "mbpp"),
        ("humaneval_infilling", r"humaneval_\w+_infilling\w*"),  # a group
    ],
)
def test_a_task_of_lm_eval_s_own_is_refused_before_it_is_loaded(
    generator: Generator, task: str, named: str
) -> None:
    """There is no network here; with one its metric would be fetched and run."""
    with pytest.raises(ConfigError, match=f"task {named} would run what the model writes"):
        list(LMEval(task=task).run(generator))

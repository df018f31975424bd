from __future__ import annotations

import ast

import pytest

from tests.mutants.operators import mutants

ALIKE = '''
def twice(a: int, b: int = 1) -> int:
    """Said, not done: 1 < 2."""
    log.info("a %d", a + b)
    if TYPE_CHECKING:
        import x
    if a < 0:
        raise ValueError(f"{a + 1} is below 0")
    return a + b
'''


@pytest.mark.parametrize(
    ("code", "becomes"),
    [
        ("x = a < b", {"a <= b"}),
        ("x = a == 'one'", {"a != 'one'", "a == 'one~'"}),
        ("x = a not in b", {"a in b"}),
        ("x = a and b", {"a or b"}),
        ("x = not a", {"a"}),
        ("x = a + b", {"a - b"}),
        ("x = a / 'name'", set()),  # of a path
        ("x += a", {"x -= a"}),
        ("x = True", {"False"}),
        ("x = 2.5", {"5.0"}),
        ("x = a[0]", {"a[-1]", "1"}),
        ("x = a[b:c]", {"a[:c]", "a[b:]"}),
        ("x = min(a, b)", {"max(a, b)"}),
        ("x = sorted(a, key=b)", {"list(a, key=b)", "sorted(a)"}),
        ("x = zip(a, b, strict=False)", {"True"}),
        ("x = {'k': a, 'l': b}", {"{'l': b}", "{'k': a}"}),
        ("x = {a, b}", {"{b}", "{a}"}),
        ("done(a)", {"pass"}),
        ("if a: pass", {"not a"}),
        ("x = [y for y in a if b]", {"not b"}),
        ("for y in a: break", {"continue"}),
    ],
)
def test_each_fault(code: str, becomes: set[str]) -> None:
    found = mutants("m.py", code)
    assert {mutant.becomes for mutant in found} == becomes
    assert {mutant.where for mutant in found} <= {"<module>"}


def test_what_is_only_said_does_not_change() -> None:
    found = {(mutant.was, mutant.becomes) for mutant in mutants("m.py", ALIKE)}
    assert found == {
        ("1", "2"),  # the default of b
        ("a < 0", "not a < 0"),
        ("a < 0", "a <= 0"),
        ("0", "1"),
        ("raise ValueError(f'{a + 1} is below 0')", "pass"),
        ("return a + b", "return None"),
        ("a + b", "a - b"),
    }


def test_a_mutant_is_the_module_with_one_fault_and_a_name_of_its_own() -> None:
    found = mutants("m.py", "def f():\n    return a + b + (a + b)\nclass C:\n    x = a + b\n")
    assert [(m.where, m.becomes, m.nth) for m in found if m.was == "a + b"] == [
        ("f", "a - b", 0),
        ("f", "a - b", 1),
        ("C", "a - b", 0),
    ]
    assert len({mutant.key for mutant in found}) == len(found)
    assert len({ast.dump(ast.parse(mutant.source)) for mutant in found}) == len(found)
    (only,) = mutants("m.py", "def f(): g(a)\ndef h(): i(a)\n", only="h")
    assert (only.where, only.was) == ("h", "i(a)")


def test_long_code_is_told_where_it_differs() -> None:
    code = "x = " + " + ".join(f"number_{n:03}" for n in range(30)) + " + [a]"
    last = next(mutant for mutant in mutants("m.py", code))
    assert len(last.was) < 60 and len(last.becomes) < 60

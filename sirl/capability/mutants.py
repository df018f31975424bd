"""Small bugs put into Python code, one token each: near-equal programs, one of them right.

Operators and constants alone are changed. A wrong variable is no test: a language model of 135M
parameters tells it from the right one 99 times in 100.
"""

from __future__ import annotations

import ast
import io
import random
import tokenize
from dataclasses import dataclass

SWAPS = {
    **{"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="},
    **{"+": "-", "-": "+", "*": "+", "/": "*", "//": "%", "%": "//", "+=": "-=", "-=": "+="},
    **{"True": "False", "False": "True", "and": "or", "or": "and", "min": "max", "max": "min"},
}


@dataclass(frozen=True)
class Mutant:
    """A changed body and what was changed, as `line:column old -> new` in the whole program."""

    body: str
    change: str


def mutants(head: str, body: str, rng: random.Random, count: int) -> list[Mutant]:
    """Up to `count` mutants of `body`, each with one token changed, drawn without replacement.

    Each compiles after `head` and differs from the original as a syntax tree.

    Args:
        head: What stands before the body: imports and the function's signature.
        body: Its indented body.
        rng: Draws which tokens are changed.
        count: How many are wanted.
    """
    original = ast.dump(ast.parse(head + body))
    first_row = head.count("\n") + 1
    tokens = tokenize.generate_tokens(io.StringIO(head + body).readline)
    edits = [(t, new) for t in tokens if t.start[0] >= first_row and (new := swap(t))]
    rng.shuffle(edits)
    found: list[Mutant] = []
    for token, new in edits:
        program = _replaced(head + body, token, new)
        if len(found) < count and _differs(program, original):
            row, column = token.start
            change = f"{row}:{column} {token.string} -> {new}"
            found.append(Mutant(program[len(head) :], change))
    return found


def swap(token: tokenize.TokenInfo) -> str:
    """What a token becomes, or nothing: an operator its neighbour, an integer the next one."""
    if token.type == tokenize.NUMBER and token.string.isdecimal():
        return str(int(token.string) + 1)
    if token.type in (tokenize.OP, tokenize.NAME):
        return SWAPS.get(token.string, "")
    return ""


def _differs(program: str, original: str) -> bool:
    """Whether a program compiles to another syntax tree than the original's dump."""
    try:
        compile(program, "<mutant>", "exec")
    except SyntaxError:
        return False
    return ast.dump(ast.parse(program)) != original


def _replaced(program: str, token: tokenize.TokenInfo, new: str) -> str:
    row, column = token.start
    lines = program.split("\n")
    line = lines[row - 1]
    lines[row - 1] = line[:column] + new + line[token.end[1] :]
    return "\n".join(lines)

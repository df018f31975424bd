"""What a mutant is: a module of ours with one small fault put in.

A mutant is known by the function it is in, by the code before and after, and where a function
holds the same code twice, by which: no line number, so that a list of them survives edits.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
LOGS = ("log.", "logging.")


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        module: Path of the module, below the project's root.
        where: The function or class it is in, `<module>` for none.
        was: The code that is changed.
        becomes: What it is changed to.
        nth: Which of several that read alike, from 0.
        source: The whole module with the fault.
    """

    module: str
    where: str
    was: str
    becomes: str
    nth: int
    source: str

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What it is known by."""
        return self.module, self.where, self.was, self.becomes, self.nth

    def __str__(self) -> str:
        nth = f" (#{self.nth})" if self.nth else ""
        return f"{self.module} {self.where}: {self.was}  ->  {self.becomes}{nth}"


def mutants(module: str, source: str, only: str = "") -> list[Mutant]:
    """Every mutant of a module, or of one of its functions, in the order of its code."""
    tree = ast.parse(source)
    seen, alike = {ast.unparse(tree)}, Counter[tuple[str, str, str]]()
    found = []
    for where, holder, field, index, node in _places(tree):
        if only and where != only:
            continue
        for new in _variants(node, field):
            _put(holder, field, index, new)
            text = ast.unparse(tree)
            _put(holder, field, index, node)
            if text in seen:  # two operators may come to the same
                continue
            seen.add(text)
            known = where, *_difference(node, new)
            found.append(Mutant(module, *known, alike[known], text))
            alike[known] += 1
    return found


def _difference(one: ast.AST, two: ast.AST) -> tuple[str, str]:
    """Both as a line of code; long ones where they differ, with some letters around it."""
    was, becomes = (" ".join(ast.unparse(node).split()) for node in (one, two))
    if max(len(was), len(becomes)) <= 72:
        return was, becomes
    ahead = _alike(was, becomes)
    behind = _alike(was[ahead:][::-1], becomes[ahead:][::-1])
    start, cut = max(0, ahead - 16), max(0, behind - 16)
    return was[start : len(was) - cut], becomes[start : len(becomes) - cut]


def _alike(one: str, two: str) -> int:
    """How many letters both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _put(holder: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(holder, field, node)
    else:
        getattr(holder, field)[index] = node


def _places(
    node: ast.AST, where: str = "<module>"
) -> Iterator[tuple[str, ast.AST, str, int | None, ast.AST]]:
    """Every node that may change, with the place it is held in: no annotation, docstring, log line
    or text of an error."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases", "exc"):
            continue
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            if not isinstance(item, ast.AST) or _says(item):
                continue
            yield where, node, field, index, item
            yield from _places(item, _name(where, item))


def _name(where: str, node: ast.AST) -> str:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return where
    return node.name if where == "<module>" else f"{where}.{node.name}"


def _says(node: ast.AST) -> bool:
    """Whether a node only tells a reader something: a docstring, a log line, an `if TYPE_CHECKING`,
    a text with values in it."""
    if isinstance(node, ast.Expr):
        constant = isinstance(node.value, ast.Constant)
        return constant or ast.unparse(node).startswith(LOGS)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.JoinedStr)


def _variants(node: ast.AST, field: str) -> Iterator[ast.AST]:
    """What a node is changed to: one fault each."""
    if field in ("test", "ifs") and isinstance(node, ast.expr) and not _negated_below(node):
        yield ast.UnaryOp(ast.Not(), node)
    if isinstance(node, ast.Compare):
        for index, comparison in enumerate(node.ops):
            yield _with(node, "ops", COMPARISONS[type(comparison)](), index)
        for index, text in enumerate([node.left, *node.comparators]):
            if isinstance(text, ast.Constant) and _text(text):
                other = ast.Constant(text.value + "~")
                if index:
                    yield _with(node, "comparators", other, index - 1)
                else:
                    yield _with(node, "left", other)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _text(node.right):
        return  # of a path
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield _with(node, "op", ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield _with(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant):
        yield from _constant(node.value)
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield ast.Pass()
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom):
        yield ast.Expr(ast.YieldFrom(ast.Tuple([], ast.Load())))
    elif isinstance(node, ast.Raise):
        yield ast.Pass()
    elif isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
    elif isinstance(node, ast.Subscript):
        yield from _subscript(node)
    elif isinstance(node, ast.Call):
        yield from _call(node)
    elif isinstance(node, ast.Dict):
        for index in range(len(node.keys)):
            less = copy.copy(node)
            less.keys = node.keys[:index] + node.keys[index + 1 :]
            less.values = node.values[:index] + node.values[index + 1 :]
            yield less
    elif isinstance(node, ast.Set) and len(node.elts) > 1:
        for index in range(len(node.elts)):
            yield ast.Set(node.elts[:index] + node.elts[index + 1 :])


def _with(node: ast.AST, field: str, value: object, index: int | None = None) -> ast.AST:
    """A shallow copy with one field changed."""
    new = copy.copy(node)
    if index is None:
        setattr(new, field, value)
    else:
        items = list(getattr(node, field))
        items[index] = value
        setattr(new, field, items)
    return new


def _negated_below(node: ast.expr) -> bool:
    """Whether a change of the condition itself is its negation."""
    turns = ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn
    if isinstance(node, ast.Compare):
        return len(node.ops) == 1 and isinstance(node.ops[0], turns)
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _constant(value: object) -> Iterator[ast.AST]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2 * value or 1.0)


def _subscript(node: ast.Subscript) -> Iterator[ast.AST]:
    if isinstance(node.slice, ast.Slice):
        for bound in ("lower", "upper", "step"):
            if getattr(node.slice, bound) is not None:
                yield _with(node, "slice", _with(node.slice, bound, None))
    elif ast.unparse(node.slice) in ("0", "-1"):
        other = ast.Constant(0 if ast.unparse(node.slice) == "-1" else -1)
        yield _with(node, "slice", other)


def _call(node: ast.Call) -> Iterator[ast.AST]:
    if isinstance(node.func, ast.Name) and node.func.id in NAMES:
        yield _with(node, "func", ast.Name(NAMES[node.func.id], ast.Load()))
    for index, keyword in enumerate(node.keywords):  # the default instead
        if ast.unparse(keyword) != "strict=False":  # which is the default
            yield _with(node, "keywords", node.keywords[:index] + node.keywords[index + 1 :])

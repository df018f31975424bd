"""YAML as a person means it: what PyYAML takes in silence and nobody means is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sirl.errors import ConfigError

MOST_NODES = 100_000
"""Values of a document, its aliases written out: no settings are larger, a bomb is."""

_SURPRISING = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+")


def parse(text: str, where: str) -> Any:
    """The value of a YAML document.

    Args:
        text: The document.
        where: Names it in errors.

    Raises:
        ConfigError: It is not valid YAML, gives a key twice, holds a number that is not finite or
            that YAML reads otherwise than it looks, or its aliases multiply beyond measure.
    """
    return _loaded(text, where, _Loader)


def check(path: Path) -> None:
    """Reads a file that another program will read, tags of its own included.

    Raises:
        ConfigError: See `parse`; or it is no file.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no file", "Paths are relative to params.yaml")
    _loaded(path.read_text(encoding="utf-8", errors="replace"), str(path), _Tagged)


def scalars(path: Path) -> Iterator[tuple[str, str]]:
    """The texts in a YAML file, whatever their tags, each with the key that it stands under.

    Raises:
        ConfigError: See `check`.
    """
    check(path)
    waiting: list[tuple[str, Node]] = []
    if root := yaml.compose(path.read_text(encoding="utf-8", errors="replace"), yaml.SafeLoader):
        waiting.append(("", root))
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, ScalarNode):
            yield key, node.value
        elif isinstance(node, MappingNode):
            waiting += [(getattr(name, "value", key), value) for name, value in node.value]
        elif isinstance(node, SequenceNode):
            waiting += [(key, item) for item in node.value]


def _loaded(text: str, where: str, loader: type[_Loader]) -> Any:
    try:
        return yaml.load(text, Loader=loader)  # a safe one
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, made strict."""

    def get_single_node(self) -> Node | None:
        node: Node | None = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise _Refused(f"the key {key.value!r} is given twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: ScalarNode) -> int | float:
        """A number that is what it looks like: 010 would be 8, 1:30 would be 90."""
        if _SURPRISING.fullmatch(node.value):
            raise _Refused(f"{node.value} is read otherwise than it looks", node)
        if node.tag.endswith(":int"):
            whole: int = self.construct_yaml_int(node)
            if abs(whole) >= 2**63:
                raise _Refused(f"{node.value:.20}... is too large", node)
            return whole
        value: float = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise _Refused(f"{node.value} is no finite number", node)
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


class _Tagged(_Loader):
    """Knows no tag and minds none."""


_Tagged.add_multi_constructor("!", lambda loader, suffix, node: None)


class _Refused(ConstructorError):
    def __init__(self, problem: str, node: Node) -> None:
        super().__init__(problem=problem, problem_mark=node.start_mark)


def _size(node: Node, known: dict[int, int]) -> int:
    """Values in a node, aliases written out; one that holds itself has no end."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES  # for whoever meets it below itself
        below: list[Node] = []
        if isinstance(node, MappingNode):
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in below)
    if known[id(node)] > MOST_NODES:
        raise _Refused(f"it holds more than {MOST_NODES:,} values, aliases written out", node)
    return known[id(node)]

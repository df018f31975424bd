"""Capability benchmarks: a frozen spec that runs itself. One file each, one line in
`BenchmarkSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.capability.code_cloze import CodeCloze
from sirl.capability.knowledge import Knowledge
from sirl.capability.lm_eval import LMEval
from sirl.capability.reasoning import ReasoningGym

BenchmarkSpec = Annotated[
    CodeCloze | Knowledge | LMEval | ReasoningGym, Field(discriminator="name")
]

"""Where prompts come from: a frozen spec a source. One file each, one line in `SourceSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.prompts.advbench import AdvBench
from sirl.prompts.do_not_answer import DoNotAnswer
from sirl.prompts.file import FileSource
from sirl.prompts.harmbench import HarmBench
from sirl.prompts.hub import HubSource
from sirl.prompts.human_eval import HumanEval
from sirl.prompts.ifbench import IFBench
from sirl.prompts.instructions import Instructions
from sirl.prompts.reasoning_gym import ReasoningGym
from sirl.prompts.s3 import S3Source

SourceSpec = Annotated[
    AdvBench
    | DoNotAnswer
    | FileSource
    | HarmBench
    | HubSource
    | HumanEval
    | IFBench
    | Instructions
    | ReasoningGym
    | S3Source,
    Field(discriminator="name"),
]

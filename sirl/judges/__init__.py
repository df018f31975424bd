"""Judges: a frozen spec that decides what a response is. One file each, one line in `JudgeSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.judges.refusal import RefusalJudge

JudgeSpec = Annotated[RefusalJudge, Field(discriminator=None)]

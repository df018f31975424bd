"""Capability benchmarks: a frozen spec each. One file each, one line in `BenchmarkSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.capability.reasoning import ReasoningGym

BenchmarkSpec = Annotated[ReasoningGym, Field(discriminator=None)]

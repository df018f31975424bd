"""Judges: a frozen spec that decides what a response is. One file each, one line in `JudgeSpec`."""

from __future__ import annotations

from sirl.judges.refusal import RefusalJudge

JudgeSpec = RefusalJudge

__all__ = ["JudgeSpec", "RefusalJudge"]

"""Attacks: a frozen spec that runs itself. One file a family, one line in `AttackSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.attacks.tense import PastTense

AttackSpec = Annotated[PastTense, Field(discriminator=None)]

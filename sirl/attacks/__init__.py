"""Attacks: a frozen spec that runs itself. One file a family, one line in `AttackSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.attacks.code import CodeCompletion
from sirl.attacks.competing import PrefixInjection, RefusalSuppression, StyleInjection
from sirl.attacks.demonstrations import Demonstrations
from sirl.attacks.encoding import Base64, Leetspeak, Rot13
from sirl.attacks.fiction import NestedFiction
from sirl.attacks.flip import Flip
from sirl.attacks.persona import Persona
from sirl.attacks.prefill import Prefill
from sirl.attacks.tense import FutureTense, PastTense

AttackSpec = Annotated[
    PastTense
    | FutureTense
    | PrefixInjection
    | RefusalSuppression
    | StyleInjection
    | Persona
    | NestedFiction
    | Demonstrations
    | Prefill
    | CodeCompletion
    | Base64
    | Rot13
    | Leetspeak
    | Flip,
    Field(discriminator="name"),
]

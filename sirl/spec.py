"""The base of everything a user writes: frozen, and an unknown key is refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen value out of params.yaml. Variants carry a literal `name` and join in a
    discriminated union."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

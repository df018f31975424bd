"""A second model of a run: it attacks the target, or judges it."""

from __future__ import annotations

from typing import Literal

from sirl.generation import TransformersBackend
from sirl.models import ModelSpec
from sirl.spec import Spec


class OwnModel(Spec):
    """A model that this process loads."""

    name: Literal["own"] = "own"
    model: ModelSpec
    backend: TransformersBackend = TransformersBackend()


AssistantSpec = OwnModel

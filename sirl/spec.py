"""The base of everything a user writes: frozen, and an unknown key is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
"""Difference of two shares."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every random generator takes."""


class Spec(BaseModel):
    """A frozen value out of params.yaml. Variants carry a literal `name` and join in a
    discriminated union. Numbers are finite, and `yes` is none."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_boolean(cls, values: Any) -> Any:
        """YAML has a dozen words for true and false, which pydantic would take for 1 and 0."""
        if isinstance(values, Mapping):
            for name in cls.model_fields.keys() & values.keys():
                annotation, value = cls.model_fields[name].annotation, values[name]
                listed = value if isinstance(value, list | tuple) else [value]
                wanted = (_holds(annotation, int) or _holds(annotation, float)) and not _holds(
                    annotation, bool
                )
                if wanted and any(isinstance(item, bool) for item in listed):
                    raise ValueError(f"{name}: true and false are no numbers")
        return values


def _holds(annotation: Any, kind: type) -> bool:
    """Whether a type is part of an annotation."""
    return annotation is kind or any(_holds(part, kind) for part in get_args(annotation))

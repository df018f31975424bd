"""The base of everything a user writes: frozen, and an unknown key is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]
"""Difference of two shares."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every random generator takes."""

SECRET = "secret"
"""The type of a complaint about a value that may be a secret: the value is not repeated."""


def _plain_url(url: str) -> str:
    if re.fullmatch(r"[a-z0-9+]+://[^\s@?#]+", url):
        return url
    raise PydanticCustomError(
        SECRET,
        "a URL is scheme://address/path here, without user, password or query: what params.yaml "
        "holds is in every record of a run",
    )


def _variable_name(name: str) -> str:
    if re.fullmatch(r"[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,15})*", name):
        return name
    raise PydanticCustomError(
        SECRET, "not the NAME of an environment variable; the key itself belongs into that variable"
    )


Url = Annotated[str, AfterValidator(_plain_url)]
"""Where something is. It is recorded and shown, so it may hold no secret."""

VariableName = Annotated[str, AfterValidator(_variable_name)]
"""The name of an environment variable that holds a secret."""


class Spec(BaseModel):
    """A frozen value out of params.yaml. Variants carry a literal `name` and join in a
    discriminated union. Numbers are finite, and `yes` is none."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        hide_input_in_errors=True,
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

    def reads(self) -> Iterator[Path]:
        """Every file and folder of this machine that it names, relative to params.yaml."""
        yield from named([value for _, value in self])


def named(value: Any) -> Iterator[Path]:
    """The paths in a value of params.yaml, at any depth."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Spec):
        yield from value.reads()
    elif isinstance(value, Mapping):
        yield from named(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from named(item)


def _holds(annotation: Any, kind: type) -> bool:
    """Whether a type is part of an annotation."""
    return annotation is kind or any(_holds(part, kind) for part in get_args(annotation))

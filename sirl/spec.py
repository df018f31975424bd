"""The base of everything a user writes: frozen, and an unknown key is refused."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0, le=1)]

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
    discriminated union."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), hide_input_in_errors=True
    )

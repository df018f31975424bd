"""Where prompts come from: a frozen spec a source. One file each, one line in `SourceSpec`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sirl.prompts.file import FileSource

SourceSpec = Annotated[FileSource, Field(discriminator=None)]

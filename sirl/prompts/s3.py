"""Prompts out of a JSONL object in an S3-compatible store."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from sirl.errors import MissingPackageError, ServiceError
from sirl.prompts.base import Source, text_key
from sirl.prompts.file import parse
from sirl.spec import Url

CLIENT = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}


class S3Source(Source):
    """`s3://bucket/key.jsonl`; the key of a prompt is a digest of its text.

    Credentials come from the environment in the usual AWS variables, the endpoint from
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
    """

    name: Literal["s3"] = "s3"
    kind: Literal["harmful", "benign"]
    uri: Annotated[Url, Field(pattern=r"^s3://[^/]+/.+\.jsonl$")]
    column: str = "prompt"

    def texts(self) -> Iterator[tuple[str, str]]:
        lines = io.TextIOWrapper(io.BytesIO(self._fetch()), encoding="utf-8-sig")
        for text in parse(lines, self.uri, ".jsonl", self.column):
            yield text_key(text), text

    def _fetch(self) -> bytes:
        try:
            import s3fs
        except ImportError:
            raise MissingPackageError("s3fs", "prompts from an object store") from None
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        store = s3fs.S3FileSystem(
            endpoint_url=endpoint, config_kwargs=CLIENT, skip_instance_cache=True
        )
        try:
            content: bytes = store.cat_file(self.uri)
        except Exception as error:  # botocore's kinds and OSError, by turns
            raise ServiceError(
                f"{self.uri} could not be read from {endpoint or 'AWS'}: {error}",
                "Check the uri, AWS_ENDPOINT_URL_S3 and the credentials in the environment",
            ) from error
        return content

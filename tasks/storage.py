"""Checkpoints on S3, by digest; the only boto3 import.

    <uri>/<digest>/files/<name>      the files of a checkpoint <uri>/<digest>/manifest.json     size
    and SHA-256 of each, written last: it is there = it is whole

Endpoint and keys come from the usual environment (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...), so
any S3-speaking server will do. Nothing published is ever changed: another checkpoint has another
digest.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sirl.errors import ConfigError, DataError, ServiceError
from sirl.records import digest_file, digest_folder

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""Files above this size go up in parts of it, and a torn upload leaves nothing visible."""

SHA256 = "sha256"
"""Object metadata: what the uploader read from its disk."""


@dataclass(frozen=True)
class Place:
    """A bucket and a prefix in it."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, uri: str) -> Place:
        """Of `s3://bucket/prefix`.

        Raises:
            ConfigError: It is not of that form.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigError(f"{uri!r} is not of the form s3://bucket/prefix")
        return cls(parts.netloc, parts.path.strip("/"))

    def key(self, *names: str) -> str:
        """The key of a path below the prefix."""
        return "/".join(name for name in (self.prefix, *names) if name)


def bootstrap(uri: str) -> None:
    """Creates the bucket of `uri` if it is missing."""
    place = Place.parse(uri)
    with _one_line_errors(uri):
        client = _client()
        if place.bucket not in {b.get("Name") for b in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=place.bucket)
            log.info("bucket %s created", place.bucket)


def publish(folder: Path, uri: str) -> str:
    """Publishes a folder under its digest; what is there already is not sent again.

    Returns:
        The digest.

    Raises:
        ServiceError: The store refuses, or holds other bytes than were sent.
    """
    place, digest = Place.parse(uri), digest_folder(folder)
    files = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            SHA256: digest_file(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    with _one_line_errors(uri):
        client = _client()
        manifest = place.key(digest, "manifest.json")
        if _metadata(client, place.bucket, manifest) is not None:
            return digest
        for name, facts in files.items():
            _upload(client, place.bucket, place.key(digest, "files", name), folder / name, facts)
        body = json.dumps({"digest": digest, "files": files}, sort_keys=True, indent=2).encode()
        client.put_object(Bucket=place.bucket, Key=manifest, Body=body)
    log.info("published %s to %s", digest[:12], uri)
    return digest


def fetch(uri: str, digest: str, target: Path) -> None:
    """Brings a published folder to `target`, which appears whole or not at all.

    Raises:
        DataError: It was never published completely, or a file is not what the manifest says.
        ServiceError: The store does not answer or refuses.
    """
    place = Place.parse(uri)
    partial = target.with_name(f"{target.name}.fetching")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _one_line_errors(uri):
            client = _client()
            for name, facts in _manifest(client, place, digest, uri).items():
                path = partial / name
                if not path.resolve().is_relative_to(partial.resolve()):
                    raise DataError(f"the manifest of {digest} names a path outside it: {name!r}")
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(place.bucket, place.key(digest, "files", name), str(path))
                if digest_file(path) != facts[SHA256]:
                    raise DataError(
                        f"{name} of checkpoint {digest[:12]} in {uri} has another SHA-256 than "
                        "its manifest says",
                        "Publish the checkpoint again under another prefix",
                    )
        if digest_folder(partial) != digest:
            raise DataError(f"the manifest at {uri}/{digest} is not that of this digest")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _facts(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, SHA256: digest_file(path)}


def _manifest(client: S3Client, place: Place, digest: str, uri: str) -> dict[str, Any]:
    key = place.key(digest, "manifest.json")
    if _metadata(client, place.bucket, key) is None:
        raise DataError(
            f"no complete checkpoint {digest[:12]} in {uri}: it has no manifest",
            "Publish it (again): what is there already is not sent twice",
        )
    body = client.get_object(Bucket=place.bucket, Key=key)["Body"].read()
    return dict(json.loads(body)["files"])


def _upload(client: S3Client, bucket: str, key: str, path: Path, facts: dict[str, Any]) -> None:
    """Sends a file unless it is there, and reads back what the store says it holds."""
    from boto3.s3.transfer import TransferConfig

    there = _metadata(client, bucket, key)
    if there == (facts["size"], facts[SHA256]):
        return
    client.upload_file(
        str(path),
        bucket,
        key,
        ExtraArgs={"Metadata": {SHA256: facts[SHA256]}, "ChecksumAlgorithm": "SHA256"},
        Config=TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES),
    )
    if digest_file(path) != facts[SHA256]:
        raise DataError(f"{path} changed while it was published", "Publish it again")
    if _metadata(client, bucket, key) != (facts["size"], facts[SHA256]):
        raise ServiceError(f"the store holds something else at {key} than was sent")


def _metadata(client: S3Client, bucket: str, key: str) -> tuple[int, str | None] | None:
    """Size and recorded SHA-256 of an object; None where there is none."""
    from botocore.exceptions import ClientError

    try:
        head = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}:
            return None
        raise
    return head["ContentLength"], head["Metadata"].get(SHA256)


def _client() -> S3Client:
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 3})
    return boto3.client("s3", config=config)


@contextmanager
def _one_line_errors(uri: str) -> Iterator[None]:
    """boto3's failures as one line with a mend."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        mend = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ServiceError(f"no credentials for {uri}", mend) from error
    except (BotoCoreError, ClientError, Boto3Error) as error:
        mend = "Check AWS_ENDPOINT_URL_S3, the keys and the bucket"
        raise ServiceError(f"the store of {uri} failed: {error}", mend) from error

"""Checkpoints on S3, by digest; the only boto3 import.

    <uri>/<digest>/files/<name>      the files of a checkpoint
    <uri>/<digest>/manifest.json     size and SHA-256 of each, written last: if it is there, all is

Endpoint and keys come from the usual environment (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...), so
any S3-speaking server will do. Nothing published is ever changed: another checkpoint has another
digest.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from sirl.errors import ConfigError, DataError, ServiceError
from sirl.records import digest_file, digest_folder, digest_of
from sirl.spec import Spec

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)

PART_BYTES = 16 << 20
"""Files above this size go up in parts of it, and a torn upload leaves nothing visible."""

MANIFEST = "manifest.json"

FIRST_REGION = "us-east-1"

MEND = "Publish the checkpoint under another prefix: nothing published is changed"


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


class FileFacts(Spec):
    """What one file of a checkpoint is."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        """Of a file on disk."""
        return cls(size=path.stat().st_size, sha256=digest_file(path))


class Manifest(Spec):
    """What a published checkpoint consists of: relative name -> facts."""

    digest: str
    files: dict[str, FileFacts]


def bootstrap(uri: str) -> None:
    """Creates the bucket of `uri` if it is missing.

    Raises:
        ServiceError: The store does not answer or refuses.
    """
    from botocore.exceptions import ClientError

    place = Place.parse(uri)
    with _one_line_errors(uri):
        client = _client()
        try:
            client.head_bucket(Bucket=place.bucket)
        except ClientError as error:
            if not _missing(error):
                raise
            _create_bucket(client, place.bucket)
            log.info("bucket %s created", place.bucket)


def _create_bucket(client: S3Client, bucket: str) -> None:
    """AWS wants the region named, except its first one, where the name is refused."""
    region: Any = client.meta.region_name
    if region == FIRST_REGION:
        client.create_bucket(Bucket=bucket)
    else:
        where: Any = {"LocationConstraint": region}
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)


def published(uri: str, digest: str) -> bool:
    """Whether a whole checkpoint of this digest is there.

    Raises:
        ServiceError: The store does not answer or refuses.
    """
    place = Place.parse(uri)
    with _one_line_errors(uri):
        return _exists(_client(), place.bucket, place.key(digest, MANIFEST))


def publish(folder: Path, uri: str) -> str:
    """Publishes a folder under its digest; what is there already is not sent again.

    Returns:
        The digest.

    Raises:
        DataError: The folder holds nothing, or changed meanwhile.
        ServiceError: The store refuses, or holds other bytes than were sent.
    """
    place, digest = Place.parse(uri), digest_folder(folder)
    if published(uri, digest):
        verify(uri, digest)
        return digest
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = {path.relative_to(folder).as_posix(): path for path in found}
    if not paths:
        raise DataError(f"{folder} holds no checkpoint to publish")
    manifest = Manifest(digest=digest, files={n: FileFacts.of(p) for n, p in paths.items()})
    with _one_line_errors(uri):
        client = _client()
        for name, facts in manifest.files.items():
            _upload(client, place.bucket, place.key(digest, "files", name), paths[name], facts)
        if digest_folder(folder) != digest:
            raise DataError(f"{folder} changed while it was published", "Publish it again")
        body = manifest.model_dump_json(indent=2).encode()
        client.put_object(Bucket=place.bucket, Key=place.key(digest, MANIFEST), Body=body)
    log.info("published %s to %s", digest[:12], uri)
    return digest


def verify(uri: str, digest: str) -> None:
    """Reads a published checkpoint back.

    Raises:
        DataError: It is not whole, or not what its digest says.
        ServiceError: The store does not answer or refuses.
    """
    place = Place.parse(uri)
    with _one_line_errors(uri):
        client = _client()
        files = _manifest(client, place, digest, uri).files
        for name, facts in files.items():
            if _stored(client, place.bucket, place.key(digest, "files", name)) != facts:
                raise _amiss(name, digest, uri)
    if digest_of({name: facts.sha256 for name, facts in files.items()}) != digest:
        raise DataError(f"the manifest at {uri}/{digest} is that of another checkpoint", MEND)


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
            for name, facts in _manifest(client, place, digest, uri).files.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not _download(client, place.bucket, place.key(digest, "files", name), path):
                    raise DataError(f"{name} of checkpoint {digest[:12]} in {uri} is gone", MEND)
                if FileFacts.of(path) != facts:
                    raise _amiss(name, digest, uri)
        if digest_folder(partial) != digest:
            raise DataError(f"the manifest at {uri}/{digest} is that of another checkpoint")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _amiss(name: str, digest: str, uri: str) -> DataError:
    return DataError(
        f"{name} of checkpoint {digest[:12]} in {uri} is not what its manifest says: "
        "another size or SHA-256",
        MEND,
    )


def _manifest(client: S3Client, place: Place, digest: str, uri: str) -> Manifest:
    key = place.key(digest, MANIFEST)
    if not _exists(client, place.bucket, key):
        raise DataError(
            f"no whole checkpoint {digest[:12]} in {uri}: it has no manifest",
            "Check uri and digest, or publish it (again): what is there is not sent twice",
        )
    body = client.get_object(Bucket=place.bucket, Key=key)["Body"].read()
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"{uri}/{digest}/{MANIFEST} is malformed: {said}") from error
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise DataError(f"the manifest of {digest[:12]} names a path outside it: {name!r}")
    return manifest


def _upload(client: S3Client, bucket: str, key: str, path: Path, facts: FileFacts) -> None:
    """Sends a file unless it is there, and reads back what the store holds: servers differ in
    which checksums they verify and whether they keep one of a file that came in parts."""
    from boto3.s3.transfer import TransferConfig

    if _stored(client, bucket, key) == facts:
        return
    config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
    client.upload_file(str(path), bucket, key, Config=config)
    if _stored(client, bucket, key) != facts:
        raise ServiceError(f"the store holds something else at {key} than was sent")


def _stored(client: S3Client, bucket: str, key: str) -> FileFacts | None:
    """Size and SHA-256 of the bytes of an object; None where there is none."""
    if not _exists(client, bucket, key):
        return None
    digest, size = hashlib.sha256(), 0
    for chunk in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return FileFacts(size=size, sha256=digest.hexdigest())


def _download(client: S3Client, bucket: str, key: str, path: Path) -> bool:
    """Whether there is such an object; then it is at `path`."""
    from botocore.exceptions import ClientError

    try:
        client.download_file(bucket, key, str(path))
    except ClientError as error:
        if _missing(error):
            return False
        raise
    return True


def _exists(client: S3Client, bucket: str, key: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if _missing(error):
            return False
        raise
    return True


def _missing(error: Exception) -> bool:
    response = getattr(error, "response", {})
    return bool(response["Error"]["Code"] in {"404", "NoSuchKey", "NoSuchBucket", "NotFound"})


def _client() -> S3Client:
    import boto3
    from botocore.config import Config

    logging.getLogger("botocore").setLevel(logging.WARNING)
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"total_max_attempts": 3},
        response_checksum_validation="when_required",  # ours is SHA-256, on any server
    )
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
        raise ServiceError(f"the store of {uri} failed: {str(error).rstrip('.')}", mend) from error

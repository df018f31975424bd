"""Publish and fetch against two real S3-speaking servers of different make."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sirl.errors import ConfigError, DataError, ServiceError, SirlError
from sirl.records import digest_file, digest_folder
from tasks import storage
from tasks.storage import Place

pytestmark = pytest.mark.services


@pytest.fixture
def uri(s3: str, request: pytest.FixtureRequest) -> str:
    """A prefix of its own in one bucket."""
    storage.bootstrap("s3://models")
    return f"s3://models/{abs(hash(request.node.nodeid))}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with a file of three parts, one in a folder and an empty one."""
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"0123456789abcdef" * (11 << 16))  # 11 MiB
    (folder / "deep" / "näme with space.json").write_text("{}")
    (folder / "empty.txt").touch()
    return folder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_BYTES", 5 << 20)  # the least that S3 takes


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every writing request made, by botocore's own event."""
    operations: list[str] = []
    make = storage._client

    def watched() -> Any:
        client = make()
        for name in ("PutObject", "CreateMultipartUpload", "UploadPart"):
            client.meta.events.register(
                f"before-call.s3.{name}", lambda model, **_: operations.append(model.name)
            )
        return client

    monkeypatch.setattr(storage, "_client", watched)
    return operations


def listed(uri: str) -> dict[str, int]:
    place = Place.parse(uri)
    found = storage._client().list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)
    return {o["Key"].removeprefix(f"{place.prefix}/"): o["Size"] for o in found.get("Contents", [])}


def put(uri: str, name: str, body: bytes) -> None:
    place = Place.parse(uri)
    storage._client().put_object(Bucket=place.bucket, Key=place.key(name), Body=body)


def one_line(caught: pytest.ExceptionInfo[SirlError]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_published_is_fetched(
    uri: str, folder: Path, tmp_path: Path, small_parts: None, sent: list[str]
) -> None:
    digest = storage.publish(folder, uri)
    assert digest == digest_folder(folder)
    assert sent.count("UploadPart") == 3
    assert storage.published(uri, digest)
    assert sorted(listed(uri)) == [
        f"{digest}/files/deep/näme with space.json",
        f"{digest}/files/empty.txt",
        f"{digest}/files/model.safetensors",
        f"{digest}/manifest.json",
    ]
    target = tmp_path / "fetched"
    target.mkdir()
    (target / "old.txt").write_text("of another checkpoint")
    storage.fetch(uri, digest, target)
    assert digest_folder(target) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint", "fetched"]


def test_publishing_twice_sends_nothing(uri: str, folder: Path, sent: list[str]) -> None:
    digest = storage.publish(folder, uri)
    sent.clear()
    assert storage.publish(folder, uri) == digest
    assert sent == []


def test_bootstrap_may_be_repeated(s3: str, folder: Path) -> None:
    bucket = f"s3://bucket-{time.monotonic_ns()}"
    with pytest.raises(ServiceError, match=r"failed: .*bucket"):
        storage.publish(folder, bucket)
    for uri in (bucket, f"{bucket}/deeper", bucket):
        storage.bootstrap(uri)
    digest = storage.publish(folder, bucket)
    assert f"{digest}/manifest.json" in listed(bucket)


def test_a_region_other_than_the_first_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    bucket = f"s3://region-{time.monotonic_ns()}"
    storage.bootstrap(bucket)


KILLED = """
import os, sys, time
from pathlib import Path
from tasks import storage
storage.PART_BYTES = 5 << 20
make, parts = storage._client, []
def deadly():
    def die(**_):
        parts.append(1)
        if len(parts) == 3:
            time.sleep(0.2)  # the others are under way or there
            os.kill(os.getpid(), 9)
    client = make()
    client.meta.events.register("before-call.s3.UploadPart", die)
    return client
storage._client = deadly
storage.publish(Path(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_upload_is_not_fetched_and_goes_on(
    uri: str, folder: Path, tmp_path: Path, sent: list[str]
) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", KILLED, str(folder), uri]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=False)
    assert done.returncode == -9
    digest = digest_folder(folder)
    assert sorted(listed(uri)) == [
        f"{digest}/files/deep/näme with space.json",
        f"{digest}/files/empty.txt",
    ]
    with pytest.raises(DataError, match=r"no whole checkpoint .* no manifest\. Check") as caught:
        storage.fetch(uri, digest, tmp_path / "fetched")
    one_line(caught)
    assert not (tmp_path / "fetched").exists()

    storage.publish(folder, uri)
    assert sent == ["PutObject", "PutObject"]  # what was missing, and the manifest
    storage.fetch(uri, digest, tmp_path / "fetched")


def test_other_bytes_in_the_store_are_found_out(uri: str, folder: Path, tmp_path: Path) -> None:
    digest = storage.publish(folder, uri)
    target = tmp_path / "fetched"
    storage.fetch(uri, digest, target)
    name = f"{digest}/files/deep/näme with space.json"
    put(uri, name, b"[]")  # as many bytes
    with pytest.raises(DataError, match=r"näme with space.json .* another size or SHA-256"):
        storage.fetch(uri, digest, target)
    assert digest_folder(target) == digest  # what was there stays
    assert not (tmp_path / "fetched.fetching").exists()


def test_a_torn_object_of_an_earlier_try_is_replaced(uri: str, folder: Path) -> None:
    digest = digest_folder(folder)
    put(uri, f"{digest}/files/deep/näme with space.json", b"[]")
    storage.publish(folder, uri)
    assert listed(uri)[f"{digest}/files/deep/näme with space.json"] == 2
    storage.fetch(uri, digest, folder.parent / "fetched")


def test_a_store_that_keeps_other_bytes_than_were_sent_gets_no_manifest(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server answers to the upload, here that all is well."""
    exists = storage._exists
    name = "deep/näme with space.json"

    def damaged(client: Any, bucket: str, key: str) -> bool:
        found = exists(client, bucket, key)
        if found and key.endswith(name):
            client.put_object(Bucket=bucket, Key=key, Body=b"[]")
        return found

    monkeypatch.setattr(storage, "_exists", damaged)
    with pytest.raises(ServiceError, match=f"holds something else at .*{name}"):
        storage.publish(folder, uri)
    assert not any(file.endswith("manifest.json") for file in listed(uri))


def test_a_folder_that_changes_while_it_is_sent_gets_no_manifest(
    uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = storage._upload

    def meddled(*arguments: Any) -> None:
        upload(*arguments)
        (folder / "deep" / "late.txt").write_text("late")

    monkeypatch.setattr(storage, "_upload", meddled)
    with pytest.raises(DataError, match="changed while it was published"):
        storage.publish(folder, uri)
    assert not any(key.endswith("manifest.json") for key in listed(uri))


def test_a_digest_that_was_never_published(uri: str, tmp_path: Path) -> None:
    assert not storage.published(uri, "0" * 64)
    with pytest.raises(DataError, match="no whole checkpoint 000000000000"):
        storage.fetch(uri, "0" * 64, tmp_path / "fetched")


def test_a_manifest_that_reaches_outside(uri: str, tmp_path: Path) -> None:
    for name in ("../../outside", "/tmp/outside", "a/../../outside", "", "."):
        manifest = {"digest": "d", "files": {name: {"size": 1, "sha256": "0"}}}
        put(uri, "d/manifest.json", json.dumps(manifest).encode())
        with pytest.raises(DataError, match="names a path outside it"):
            storage.fetch(uri, "d", tmp_path / "deep" / "fetched")
    assert not any(tmp_path.iterdir())


def test_a_malformed_manifest(uri: str, tmp_path: Path) -> None:
    for body in (b"", b"{", b'{"files": []}', b'{"digest": "d"}', b"\xff"):
        put(uri, "d/manifest.json", body)
        with pytest.raises(DataError, match=r"d/manifest\.json is malformed") as caught:
            storage.fetch(uri, "d", tmp_path / "fetched")
        one_line(caught)


def test_the_manifest_of_another_checkpoint(uri: str, folder: Path, tmp_path: Path) -> None:
    """All files are what the manifest says, yet they are not what the digest says."""
    (folder / "model.safetensors").unlink()
    digest = storage.publish(folder, uri)
    facts = {"size": 2, "sha256": digest_file(folder / "deep" / "näme with space.json")}
    manifest = {"digest": digest, "files": {"deep/näme with space.json": facts}}
    put(uri, f"{digest}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match="is that of another checkpoint"):
        storage.fetch(uri, digest, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_file_that_is_gone_from_the_store(uri: str, folder: Path, tmp_path: Path) -> None:
    digest = storage.publish(folder, uri)
    place = Place.parse(uri)
    key = place.key(digest, "files", "empty.txt")
    storage._client().delete_object(Bucket=place.bucket, Key=key)
    with pytest.raises(DataError, match=r"empty\.txt of checkpoint .* is gone\. Publish"):
        storage.fetch(uri, digest, tmp_path / "fetched")


def test_nothing_to_publish(uri: str, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no checkpoint"):
            storage.publish(folder, uri)
    assert listed(uri) == {}


CALLS: list[Callable[[Path], object]] = [
    lambda folder: storage.publish(folder, "s3://bucket/x"),
    lambda folder: storage.fetch("s3://bucket/x", "d", folder.parent / "fetched"),
]


@pytest.mark.parametrize("call", CALLS)
def test_no_credentials(
    moto: str, monkeypatch: pytest.MonkeyPatch, folder: Path, call: Callable[[Path], object]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ServiceError, match=r"no credentials for s3://bucket.*\. Set AWS_ACCESS"):
        call(folder)


def test_wrong_credentials(rclone: str, keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone)  # moto takes any keys
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(ServiceError, match=r"the store of s3://bucket failed: .*403") as caught:
        storage.bootstrap("s3://bucket")
    one_line(caught)


@pytest.mark.parametrize("call", CALLS)
def test_nobody_listens(
    keys: None, monkeypatch: pytest.MonkeyPatch, folder: Path, call: Callable[[Path], object]
) -> None:
    with socket.socket() as bound:  # and does not listen: connections are refused
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(ServiceError, match="Could not connect to the endpoint") as caught:
            call(folder)
    assert endpoint in one_line(caught)


@pytest.mark.parametrize("uri", ["models/x", "https://models/x", "s3:///x", "s3:models"])
def test_what_is_no_s3_uri(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not of the form s3://bucket/prefix"):
        storage.publish(tmp_path, uri)


def test_keys_have_no_empty_part() -> None:
    assert Place.parse("s3://b").key("d", "m") == "d/m"
    assert Place.parse("s3://b/").key("d") == "d"
    assert Place.parse("s3://b/p/q/").key("d", "m") == "p/q/d/m"

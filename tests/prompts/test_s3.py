from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from sirl.errors import DataError, ServiceError
from sirl.prompts import S3Source


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def store(keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="prompts")
    client.put_object(
        Bucket="prompts", Key="a/good.jsonl", Body='{"prompt": "Café?"}\n{"prompt": "b"}\n'.encode()
    )
    client.put_object(Bucket="prompts", Key="bad.jsonl", Body=b'{"prompt": "\xff"}\n')
    yield endpoint
    server.stop()


@pytest.mark.services
def test_it_reads_an_object_and_says_what_is_wrong_with_another(store: str) -> None:
    good = S3Source(kind="benign", uri="s3://prompts/a/good.jsonl")
    assert [prompt.text for prompt in good.prompts()] == ["Café?", "b"]
    with pytest.raises(DataError, match=r"s3://prompts/bad\.jsonl is not UTF-8"):
        list(S3Source(kind="benign", uri="s3://prompts/bad.jsonl").prompts())
    with pytest.raises(ServiceError, match=r"s3://prompts/none\.jsonl could not be read"):
        list(S3Source(kind="benign", uri="s3://prompts/none.jsonl").prompts())


def test_a_store_that_does_not_answer_is_one_line(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(ServiceError, match=f"could not be read from {endpoint}") as caught:
        list(S3Source(kind="benign", uri="s3://prompts/a.jsonl").prompts())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["http://x/a.jsonl", "s3://bucket", "s3:///a.jsonl", "s3://b/a.csv"]
)
def test_only_a_jsonl_object_is_taken(uri: str) -> None:
    with pytest.raises(ValidationError, match="uri"):
        S3Source(kind="benign", uri=uri)

"""Canaries: what is given as a secret comes out of nothing that people see or keep."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import doctor, serve
from sirl import config
from sirl.errors import ConfigError, SirlError
from sirl.layout import Layout
from tasks import tracking

REPO = Path(__file__).parents[2]
CANARY = "canary0123"
BAD_URLS = [
    f"http://user:{CANARY}@127.0.0.1:9/v1",
    f"http://{CANARY}@127.0.0.1:9/v1",
    f"http://user:{CANARY}/2@127.0.0.1:9/v1",
    f"http://user:{CANARY}#2@127.0.0.1:9/v1",
    f"http://127.0.0.1:9/v1?api_key={CANARY}",
    f"http://127.0.0.1:9/v1#{CANARY}",
]
BAD_KEYS = [f"sk-live-{CANARY}", f"sk_live_{CANARY}", CANARY, "AKIA" + CANARY.upper() * 2]
URL_PLACES: dict[str, Callable[[str], str]] = {
    "attack.attacker": lambda url: f"{{name: openai, model: m, url: '{url}'}}",
    "backend": lambda url: f"{{name: openai, urls: ['{url}']}}",
    "train.rollouts": lambda url: f"{{name: vllm_server, url: '{url}'}}",
    "base.model": lambda url: f"{{name: s3, digest: d, uri: '{url}'}}",
    "promote.publish": lambda url: f"'{url}'",
    "prepare.train.sources": lambda url: f"[{{name: s3, kind: harmful, uri: '{url}/x.jsonl'}}]",
}


def load(*settings: str) -> config.Params:
    return config.load(REPO / "params.yaml", settings)


@pytest.mark.parametrize("place", URL_PLACES)
@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_with_a_secret_is_refused_and_not_repeated(place: str, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"{place}={URL_PLACES[place](url)}")
    assert CANARY not in str(caught.value)
    assert place in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize("place", ["attack.attacker", "backend"])
def test_a_key_in_place_of_its_variable_s_name_is_refused(place: str, key: str) -> None:
    fields = {"attack.attacker": "model: m, url: 'http://h/v1'", "backend": "urls: ['http://h/v1']"}
    said = f"{place}={{name: openai, {fields[place]}, api_key_env: '{key}'}}"
    with pytest.raises(ConfigError, match="api_key_env: not the NAME") as caught:
        load(said)
    assert CANARY not in str(caught.value).lower()


def test_what_is_plain_passes() -> None:
    params = load(
        "attack.attacker={name: openai, model: m, url: 'https://h.example:8/v1', "
        "api_key_env: OPENAI_API_KEY}",
        "promote.publish=s3://bucket/some/prefix",
    )
    assert params.promote.publish == "s3://bucket/some/prefix"


def test_a_value_beside_a_secret_does_not_bring_it_out() -> None:
    """A missing or misspelt key is told without the mapping in which it is."""
    for fields in ("", "model: [m]", "modle: m"):
        with pytest.raises(ConfigError) as caught:
            load(f"attack.attacker={{name: openai, url: 'http://u:{CANARY}@h/v1', {fields}}}")
        assert CANARY not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load(f"name.url=http://u:{CANARY}@h")
    assert CANARY not in str(caught.value)


ADDRESSES = [
    f"postgresql+psycopg2://user:{CANARY}@127.0.0.1:9/db",
    f"postgresql+psycopg2://user:{CANARY}/ter@127.0.0.1:9/db",
    f"postgresql+psycopg2://user:{CANARY}#ter@127.0.0.1:9/db",
    f"postgresql+psycopg2://user:a@{CANARY}@127.0.0.1:9/db",
    f"postgresql+psycopg2://user:x%2F{CANARY}@127.0.0.1:9/db",
    f"postgresql+psycopg2://127.0.0.1:9/db?user=user&password={CANARY}",
    f"http://user:{CANARY}@127.0.0.1:9",
    f"http://{CANARY}@127.0.0.1:9/?token={CANARY}",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_of_the_environment_is_shown_with_its_password(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger().addHandler(handler)
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(SirlError) as caught, tracking.one_line_errors(Layout(tmp_path)):
            tracking.connect(Layout(tmp_path))
        tracking.Run(None, "x", address).metrics({"a": 1.0})  # type: ignore[arg-type]
    finally:
        logging.getLogger().removeHandler(handler)
    params = load("promote.publish=s3://b/p")
    endpoints = {"AWS_ENDPOINT_URL_S3": address, "PREFECT_API_URL": address}
    found = [
        doctor.tracking(address),
        doctor.prefect(tmp_path, endpoints),
        *doctor.store(endpoints, params),
        doctor.remote("store", address, tmp_path, {}),
    ]
    assert "127.0.0.1:9" in str(found)
    for text in (str(caught.value), heard.getvalue(), str(found)):
        assert CANARY not in text
    assert "not recorded" in heard.getvalue()


@pytest.mark.parametrize("address", ["sqlite:////home/a@b/mlflow.db", "/plain/a@b", "http://h:5/x"])
def test_what_holds_no_secret_is_shown_as_it_is(address: str) -> None:
    assert tracking.shown(address) == address


def test_no_server_is_given_a_password_as_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments of a process can be read by everybody on the machine."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESSES[0])
    monkeypatch.setattr(serve, "end", lambda _: None)
    started: list[list[str]] = []

    def popen(command: list[str], **_: object) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(poll=lambda: 1, args=None)

    monkeypatch.setattr(serve.subprocess, "Popen", popen)
    with pytest.raises(SirlError, match="ended by itself"):
        serve.serve(tmp_path, 0, 0)
    assert [command[2] for command in started] == ["prefect", "mlflow"]
    assert CANARY not in str(started)
    assert serve.auth(tmp_path / ".sirl/prefect/profiles.toml") not in str(started)

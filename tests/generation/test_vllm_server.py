"""Backend `openai` against a real vLLM server, as `make vllm-server` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from sirl.generation import OpenAIBackend, Request, Sampling, TransformersBackend
from sirl.generation.assistant import OpenAIModel
from sirl.generation.openai import served_name
from sirl.records import Message
from tests.conftest import write_tiny_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="make test-vllm"),
]
SAMPLING = Sampling(max_new_tokens=16)
REQUESTS = [
    Request(f"r{i}", (Message("user", "tree " * (i + 1)),), prefill="Sure" if i % 2 else "")
    for i in range(9)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's kernels for a CPU want heads of 32 or more.
    model = write_tiny_model(tmp_path_factory.mktemp("served"), heads=2)
    told = {"eos_token_id": 1, "repetition_penalty": 5.0, "do_sample": True, "top_k": 2}
    (model / "generation_config.json").write_text(json.dumps(told))  # nobody is to obey it
    return model


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "infra.vllm_server", str(folder), "--port", str(port)]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    process = subprocess.Popen(
        [*command, "--dtype", "float32", "--enforce-eager"], env=os.environ | variables
    )
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def test_it_answers_and_scores_as_transformers_does(url: str, folder: Path) -> None:
    there = OpenAIBackend(urls=(url,)).open(folder, "cpu")
    here = TransformersBackend(dtype="float32").open(folder, "cpu")
    done = {c.id: c for c in there.generate(REQUESTS, SAMPLING)}
    for own in here.generate(REQUESTS, SAMPLING):
        assert done[own.id].token_ids == own.token_ids
        assert (done[own.id].text, done[own.id].finish) == (own.text, own.finish)
    pairs = [("one plus one is", " two"), ("", " three"), ("a", "bcd")]
    for (score, best), (own_score, own_best) in zip(
        there.loglikelihoods(pairs), here.loglikelihoods(pairs), strict=True
    ):
        assert score == pytest.approx(own_score, abs=1e-3)
        assert best == own_best


def test_a_request_keeps_its_randomness(url: str, folder: Path) -> None:
    there = OpenAIBackend(urls=(url,)).open(folder, "cpu")
    hot = Sampling(max_new_tokens=8, temperature=1.0)
    one, again, other = (
        {c.id: c.text for c in there.generate(REQUESTS, hot, seed=seed)} for seed in (1, 1, 2)
    )
    assert one == again != other


def test_a_long_chat_is_marked(url: str, folder: Path) -> None:
    there = OpenAIBackend(urls=(url,)).open(folder, "cpu")
    long = Request("long", (Message("user", "x" * 9000),))
    done = {c.id: c for c in there.generate([long, REQUESTS[0]], SAMPLING)}
    assert done["long"].finish == "error"
    assert done["long"].note.startswith("context window exceeded")
    assert done["r0"].finish != "error"


def test_it_may_attack_or_judge(url: str, folder: Path) -> None:
    model = OpenAIModel(url=url, model=served_name(folder)).open()
    here = TransformersBackend(dtype="float32").open(folder, "cpu")
    done = {c.id: c.text for c in model.generate(REQUESTS, SAMPLING)}
    assert done == {c.id: c.text for c in here.generate(REQUESTS, SAMPLING)}

"""The client against a server over HTTP, with every trouble one may have."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sirl.errors import ConfigError, ModelError, ServiceError
from sirl.generation import OpenAIBackend, Request, Sampling, best_of_n, server
from sirl.generation.assistant import OpenAIModel
from sirl.generation.openai import ServedFolder, served_name
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Completion, Message
from tests.generation.openai_server import OpenAIServer, serving

SAMPLING = Sampling(max_new_tokens=6)
REQUESTS = [
    Request(f"r{i}", (Message("user", "tree " * (1 + i)),), prefill="Sure" if i % 2 else "")
    for i in range(7)
]
BUSY = (503, {}, {"error": {"message": "loading"}})


@pytest.fixture(scope="module")
def local(tiny_model: Path) -> TransformersGenerator:
    return TransformersGenerator.load(tiny_model, device="cpu", dtype="float32", batch_tokens=2048)


@pytest.fixture
def there(local: TransformersGenerator, tiny_model: Path) -> OpenAIServer:
    return OpenAIServer(local, served_name(tiny_model))


@pytest.fixture
def url(there: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(server, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(server, "CONNECT_SECONDS", 1.0)
    with serving(there) as address:
        yield address


@pytest.fixture
def served(url: str, tiny_model: Path) -> ServedFolder:
    generator = OpenAIBackend(urls=(url,), concurrency=3, timeout=2).open(tiny_model, "cpu")
    assert isinstance(generator, ServedFolder)
    return generator


def answers(generator: ServedFolder, count: int = len(REQUESTS)) -> dict[str, Completion]:
    return {done.id: done for done in generator.generate(REQUESTS[:count], SAMPLING)}


def test_a_served_folder_answers_as_transformers_does(
    served: ServedFolder, local: TransformersGenerator
) -> None:
    done = answers(served)
    for here in local.generate(REQUESTS, SAMPLING):
        other = done[here.id]
        assert (other.text, other.token_ids) == (here.text, here.token_ids)
        assert (other.finish, other.prompt_tokens) == (here.finish, here.prompt_tokens)
        assert other.entropies == ()


def test_likelihoods_are_those_of_transformers(
    served: ServedFolder, local: TransformersGenerator
) -> None:
    pairs = [("one plus one is", " two"), ("", "three"), ("a", "b")]
    (greedy,) = local.generate([Request("g", (Message("user", "a"),))], Sampling(max_new_tokens=1))
    pairs.append((local.tokenizer.decode(local.encode(Request("g", (Message("user", "a"),)))), ""))
    pairs[-1] = (pairs[-1][0], greedy.text)
    for (score, best), (other, other_best) in zip(
        served.loglikelihoods(pairs), local.loglikelihoods(pairs), strict=True
    ):
        assert score == pytest.approx(other, abs=1e-4)
        assert best == other_best
    assert served.loglikelihoods(pairs)[-1][1]


def test_every_request_has_its_own_seed(served: ServedFolder, there: OpenAIServer) -> None:
    answers(served)
    answers(served)
    seeds = [body["seed"] for body in there.bodies]
    assert len(set(seeds)) == len(REQUESTS)
    assert sorted(seeds[: len(REQUESTS)]) == sorted(seeds[len(REQUESTS) :])


def test_concurrency_is_bounded_and_requests_are_drawn_as_places_come_free(
    served: ServedFolder, there: OpenAIServer
) -> None:
    drawn = 0

    def requests() -> Iterator[Request]:
        nonlocal drawn
        for n in range(40):
            drawn += 1
            yield Request(f"r{n}", (Message("user", "a"),))

    for answered, _ in enumerate(served.generate(requests(), SAMPLING)):
        assert drawn <= answered + 1 + 3
    assert (drawn, there.most) == (40, 3)


def test_a_consumer_may_leave_early(served: ServedFolder) -> None:
    stream = served.generate(REQUESTS, SAMPLING)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(answers(served)) == len(REQUESTS)


def test_failures_that_pass_are_retried(served: ServedFolder, there: OpenAIServer) -> None:
    there.troubles = [BUSY, (502, {}, "<html>bad gateway</html>"), BUSY]
    assert all(done.finish != "error" for done in answers(served).values())
    assert there.paths["/v1/completions"] == len(REQUESTS) + 3


def test_a_rate_limit_is_waited_for(served: ServedFolder, there: OpenAIServer) -> None:
    there.troubles = [(429, {"Retry-After": "1"}, {"error": "slow down"})]
    started = time.monotonic()
    assert answers(served, 1)["r0"].finish != "error"
    assert time.monotonic() - started >= 1


def test_a_rate_limit_that_lasts_ends_the_run(served: ServedFolder, there: OpenAIServer) -> None:
    there.troubles = [(429, {"Retry-After": "1"}, {"error": "slow down"})] * 9
    with pytest.raises(ServiceError, match=r"answers 429: its rate limit is reached, for 2 s\."):
        answers(served, 1)


def test_a_long_chat_is_marked_and_the_others_go_on(
    served: ServedFolder, there: OpenAIServer
) -> None:
    said = "This model's maximum context length is 8192 tokens. However, you requested more"
    there.troubles = [(400, {}, {"error": {"message": said}})]
    done = answers(served)
    (long,) = [c for c in done.values() if c.finish == "error"]
    assert long.note == f"context window exceeded: {said}"
    assert (long.text, long.response_tokens, len(done)) == ("", 0, len(REQUESTS))


def test_a_slow_answer_is_marked_while_the_server_lives(
    served: ServedFolder, there: OpenAIServer
) -> None:
    there.troubles = [None]
    notes = sorted(done.note for done in answers(served).values())
    assert notes == [""] * (len(REQUESTS) - 1) + ["no answer within 2 s"]


def test_a_server_that_hangs_ends_the_run(served: ServedFolder, there: OpenAIServer) -> None:
    there.hangs = True
    with pytest.raises(ServiceError, match=r"says nothing within 1 s\. Start or mend"):
        answers(served)


def test_a_server_that_goes_away_ends_the_run(
    there: OpenAIServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BACKOFF_SECONDS", 0.01)
    with serving(there) as url:
        generator = OpenAIBackend(urls=(url,), timeout=1).open(tiny_model, "cpu")
    with pytest.raises(ServiceError, match=r"does not answer: .* for 1 s") as caught:
        list(generator.generate(REQUESTS, SAMPLING))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((401, {}, {"error": {"message": "no"}}), "refuses a request without a key .401: no"),
        ((404, {}, {"message": "no such model"}), r"refuses a request to .* \(404: no such model"),
        ((400, {}, {"error": {"message": "bad top_k"}}), r"\(400: bad top_k\)"),
        ((200, {}, "<html>login</html>"), "what is no JSON object"),
        ((200, {}, "[1]"), "what is no JSON object"),
        ((200, {}, ""), "what is no JSON object"),
        ((200, {}, "[" * 100_000), "what is no JSON object"),
        ((400, {}, {"error": ["no"]}), r"\(400: \['no'\]\)"),
        ((404, {}, "\x1b[2J\x9bno \u202e"), r"\(404: \\x1b\[2J\\x9bno \\u202e\)"),
    ],
)
def test_a_refusal_ends_the_run_in_one_line(
    reply: tuple[int, dict[str, str], object],
    error: str,
    served: ServedFolder,
    there: OpenAIServer,
) -> None:
    there.troubles = [reply]
    with pytest.raises(ServiceError, match=error):
        answers(served)


def test_another_model_is_never_taken(served: ServedFolder, there: OpenAIServer) -> None:
    there.changes = {"model": "other"}
    with pytest.raises(ServiceError, match=r"was asked for sirl-.* and answered as other"):
        answers(served)
    there.changes = {"choices": []}
    with pytest.raises(ServiceError, match="a reply without choices"):
        answers(served)


@pytest.mark.parametrize(
    "choices",
    ["text", [None], [{}], [{"text": "no end"}], [{"text": ["part"], "finish_reason": "stop"}], 7],
)
def test_a_reply_of_another_form_is_one_line(
    choices: object, served: ServedFolder, there: OpenAIServer
) -> None:
    there.changes = {"choices": choices}
    with pytest.raises(ServiceError, match="of another form than OpenAI's") as caught:
        answers(served)
    assert "\n" not in str(caught.value)


def test_a_reply_without_end_is_cut(
    served: ServedFolder, there: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_BYTES", 1000)
    there.troubles = [(200, {}, '{"choices": "' + "x" * 5000 + '"}')]
    with pytest.raises(ServiceError, match="what is no JSON object"):
        answers(served)


def test_a_folder_that_changed_is_not_served(url: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    backend = OpenAIBackend(urls=("http://127.0.0.1:9/v1", url))
    assert isinstance(backend.open(folder, "cpu"), ServedFolder)
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9/v1 does not answer.*make vllm-server"):
        backend.open(folder, "cpu")


def test_best_of_n_is_refused(url: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    best_of_n.write(folder, 4)
    with pytest.raises(ModelError, match=r"best of n .* no server tells"):
        OpenAIBackend(urls=(url,)).open(folder, "cpu")


def test_a_server_that_tells_no_likelihoods_is_refused(
    served: ServedFolder, there: OpenAIServer
) -> None:
    there.changes = {"choices": [{"text": "", "finish_reason": "length"}]}
    with pytest.raises(ServiceError, match="tells no log-probabilities of a prompt"):
        served.loglikelihoods([("a", "b")])


def test_a_key_comes_from_the_environment_and_is_not_shown(
    url: str, there: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = OpenAIModel(url=url, model=there.model, api_key_env="SIRL_TEST_KEY")
    with pytest.raises(ConfigError, match="SIRL_TEST_KEY is not set"):
        spec.open()
    monkeypatch.setenv("SIRL_TEST_KEY", "s3cret")
    model = spec.open()
    there.troubles = [(403, {}, {"error": "who are you"})]
    with pytest.raises(ServiceError, match=r"refuses the key .403: who are you") as caught:
        list(model.generate(REQUESTS, SAMPLING))
    assert "Bearer s3cret" in there.keys
    assert "s3cret" not in str(caught.value) + repr(vars(model)) + spec.model_dump_json()


def test_a_chat_model_answers_by_its_own_template(
    url: str, there: OpenAIServer, local: TransformersGenerator
) -> None:
    model = OpenAIModel(url=url + "/", model=there.model).open()
    done = {c.id: c for c in model.generate(REQUESTS, SAMPLING)}
    for here in local.generate(REQUESTS, SAMPLING):
        assert done[here.id].text == here.text
        assert done[here.id].response_tokens == len(here.token_ids)
    with pytest.raises(ServiceError, match="is a chat model"):
        model.loglikelihoods([("a", "b")])


def test_a_filtered_answer_is_no_answer(url: str, there: OpenAIServer) -> None:
    message = {"message": {"content": None}, "finish_reason": "content_filter"}
    there.changes = {"choices": [message]}
    (done,) = OpenAIModel(url=url, model=there.model).open().generate(REQUESTS[:1], SAMPLING)
    assert (done.finish, done.note) == ("error", "the server ended the answer: content_filter")


def test_a_model_that_is_not_there_is_refused_with_the_choices(
    url: str, there: OpenAIServer
) -> None:
    with pytest.raises(ServiceError, match=rf"does not serve other\. Choose from: {there.model}"):
        OpenAIModel(url=url, model="other").open()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ServiceError, match="does not answer"):
        OpenAIModel(url=closed, model="other").open()

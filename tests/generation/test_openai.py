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
    for (score, best), (other, other_best) in zip(
        served.loglikelihoods(pairs), local.loglikelihoods(pairs), strict=True
    ):
        assert score == pytest.approx(other, abs=1e-4)
        assert best == other_best
    (greedy,) = local.generate(REQUESTS[:1], Sampling(max_new_tokens=1))
    ids = [*local.encode(REQUESTS[0]), *greedy.token_ids]
    ((_, said),) = served.scores([(ids, 1)])
    assert said
    assert served.rolling(["one two"]) == pytest.approx(local.rolling(["one two"]), abs=1e-4)


def test_no_setting_is_left_to_the_server(
    served: ServedFolder, there: OpenAIServer, local: TransformersGenerator
) -> None:
    there.defaults = {
        **{"max_tokens": 2, "min_tokens": 6, "stop_token_ids": [5], "ignore_eos": True, "n": 2},
        **{"temperature": 0.7, "top_p": 0.5, "top_k": 3, "min_p": 0.4, "seed": 7},
        **{"repetition_penalty": 5.0, "presence_penalty": 1.0, "frequency_penalty": 1.0},
    }
    greedy = {done.id: done.token_ids for done in local.generate(REQUESTS, SAMPLING)}
    for changes in (
        {},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1e-4},
    ):
        sampling = SAMPLING.model_copy(update=changes)
        assert {c.id: c.token_ids for c in served.generate(REQUESTS, sampling)} == greedy
    hot = SAMPLING.model_copy(update={"temperature": 1.0})
    assert {c.id: c.token_ids for c in served.generate(REQUESTS, hot)} != greedy
    served.loglikelihoods([("one", " two")])
    said = [there.defaults.keys() - body.keys() for body in there.bodies]
    assert said == [set()] * 5 * len(REQUESTS) + [{"seed", "stop_token_ids"}]


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
    there.changes = {}
    there.troubles = [(200, {}, {"model": there.model})]
    with pytest.raises(ServiceError, match="a reply without choices"):
        answers(served)


@pytest.mark.parametrize(
    ("asked", "answered", "one"),
    [
        ("gpt-x", "gpt-x-2024-08-06", True),
        ("gpt-x", "gpt-x@20240806", True),
        ("gpt-x", "gpt-x-0806", True),
        ("gpt-x", "gpt-x-001", True),
        ("gpt-x-latest", "gpt-x-2508", True),
        ("gpt-x", "gpt-x-mini", False),
        ("gpt-x", "gpt-x-mini-2024-08-06", False),
        ("gpt-x", "gpt-x-405b", False),
        ("gpt-x", "other-2024-08-06", False),
        ("gpt-x-2024-08-06", "gpt-x-2024-11-20", False),
        ("gpt-x-2024-08-06", "gpt-x", False),
        ("gpt-x", None, False),
    ],
)
def test_a_dated_snapshot_is_the_model_that_was_asked(
    asked: str, answered: str | None, one: bool, url: str, there: OpenAIServer
) -> None:
    there.model = asked
    model = OpenAIModel(url=url, model=asked).open()
    there.changes = {"model": answered}
    if one:
        assert [done.finish for done in model.generate(REQUESTS, SAMPLING)] == ["length"] * 7
        return
    with pytest.raises(ServiceError, match=f"was asked for {asked} and answered as {answered}"):
        list(model.generate(REQUESTS, SAMPLING))


@pytest.mark.parametrize(
    "choices",
    ["text", [None], [{"text": ["part"], "finish_reason": "stop"}], 7],
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


def filtered(message: object, **more: object) -> tuple[int, dict[str, str], object]:
    choice = {"message": message, "finish_reason": "stop", **more}
    return (200, {}, {"model": "some-model", "choices": [choice]})


def failing(status: int, /, **error: object) -> tuple[int, dict[str, str], object]:
    return (status, {}, {"error": error})


WITHHELD = [
    failing(400, code="content_filter", message="The prompt was filtered."),  # Azure
    failing(400, message="no", innererror={"code": "ResponsibleAIPolicyViolation"}),
    failing(400, code="invalid_prompt", message="Invalid prompt"),  # OpenAI
    failing(400, message="Your request was rejected by our safety system."),
    failing(400, code="data_inspection_failed", message="no"),  # DashScope
    failing(400, message="Content Exists Risk"),  # DeepSeek
    failing(403, code=403, message="Your model requires moderation; the input was flagged"),
    failing(403, message="Content violates usage guidelines."),  # xAI
    (400, {}, [{"error": {"message": "blocked by content filtering policy"}}]),
    (200, {}, {"error": {"code": "content_filter", "message": "no"}}),
    (200, {}, {"model": "", "choices": []}),
    (200, {}, {"model": "some-model", "choices": None}),
    filtered({"content": None}, finish_reason="content_filter"),
    filtered({"content": "Half an answ"}, finish_reason="content_filter"),
    filtered(None, finish_reason="content_filter"),
]


@pytest.mark.parametrize("trouble", WITHHELD)
def test_what_a_filter_withholds_is_one_answer_that_lacks(
    trouble: tuple[int, dict[str, str], object], url: str, there: OpenAIServer
) -> None:
    there.model = "some-model"
    model = OpenAIModel(url=url, model="some-model", concurrency=1).open()
    there.troubles = [trouble]
    done = list(model.generate(REQUESTS, SAMPLING))
    assert [row.finish for row in done] == ["error"] + ["length"] * (len(REQUESTS) - 1)
    assert done[0].note.startswith("withheld by the server's content filter")
    assert done[0].text == ""


def test_a_refusal_said_apart_is_never_read_as_an_answer(url: str, there: OpenAIServer) -> None:
    there.model = "some-model"
    there.troubles = [filtered({"content": None, "refusal": "no"})]
    model = OpenAIModel(url=url, model="some-model").open()
    (done,) = model.generate(REQUESTS[:1], SAMPLING)
    assert (done.finish, done.text, done.note) == ("error", "", "the model declined: no")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "yes", "reasoning_content": "Let me see."}, "yes"),
        ({"content": None, "reasoning_content": "Let me s"}, ""),
        ({"content": None, "reasoning": "Let me s"}, ""),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}]},
                    {"type": "text", "text": "yes"},
                ]
            },
            "yes",
        ),
    ],
)
def test_thoughts_that_a_server_tells_apart_are_no_answer(
    message: object, text: str, url: str, there: OpenAIServer
) -> None:
    there.model = "some-model"
    there.troubles = [filtered(message)]
    model = OpenAIModel(url=url, model="some-model").open()
    (done,) = model.generate(REQUESTS[:1], SAMPLING)
    assert (done.finish, done.text) == ("stop", text)


def test_template_arguments_go_with_every_chat(url: str, there: OpenAIServer) -> None:
    spec = OpenAIModel(
        url=url, model=there.model, chat_template_kwargs={"enable_thinking": False, "level": 2}
    )
    list(spec.open().generate(REQUESTS[:2], SAMPLING))
    list(OpenAIModel(url=url, model=there.model).open().generate(REQUESTS[:1], SAMPLING))
    sent = [body.get("chat_template_kwargs") for body in there.bodies]
    assert sent == [{"enable_thinking": False, "level": 2}] * 2 + [None]


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

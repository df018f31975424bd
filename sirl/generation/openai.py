"""Generators over an OpenAI-compatible server.

`ServedFolder` is a model of the pipeline that a server has loaded: chats are templated and
tokenised here, from the folder, so that the server is sent the very token ids that transformers
would read. `ChatModel` is any model by its name, for attackers and judges: it is sent messages.

No server tells the entropy of the whole vocabulary, so completions hold none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sirl import model_files
from sirl.errors import ModelError, ServiceError
from sirl.generation import Request, Sampling
from sirl.generation.likelihoods import Encoded, Scorer
from sirl.generation.server import WITHHELD, Post, Server, Unanswered
from sirl.generation.tokens import decode, encode, thought_opened
from sirl.models import (
    TemplateArguments,
    end_token_ids,
    load_generation_config,
    load_tokenizer,
)
from sirl.records import Completion, read_json

NEUTRAL = {
    "n": 1,
    "min_p": 0.0,
    "min_tokens": 0,
    "ignore_eos": False,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Settings that a server may take from the model's generation config, or its own, where a request
leaves them open."""


def served_name(folder: Path) -> str:
    """The name a server gives to the model in a folder: it holds the digest of what is in it, so
    that a server which loaded something else cannot be taken for it."""
    return f"sirl-{model_files.digest(folder)[:16]}"


class ServedFolder(Scorer):
    """A `Generator` over a model folder that a server has loaded. The server must take token ids
    and, for likelihoods, tell those of the prompt: vLLM does.

    Args:
        server: It serves the folder.
        folder: The model; its tokenizer and chat template are used.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.tokenizer = load_tokenizer(folder)
        self.context = read_json(folder / "config.json").get("max_position_embeddings")
        self.end_ids = end_token_ids(load_generation_config(folder), self.tokenizer)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        """See `Generator.generate`."""

        async def ask(post: Post, request: Request) -> Completion:
            ids = encode(self.tokenizer, request)
            body = {
                "prompt": ids,
                **NEUTRAL,
                **_settings(request, sampling, seed),
                "top_k": sampling.top_k or 0,
                "stop_token_ids": sorted(self.end_ids),
                "return_token_ids": True,
            }
            try:
                reply = await post("/completions", body)
            except Unanswered as why:
                return _unanswered(request, str(why))
            (choice,) = reply["choices"]
            token_ids = tuple(choice.get("token_ids") or ())
            text = decode(self.tokenizer, token_ids) if token_ids else choice.get("text") or ""
            text = thought_opened(self.tokenizer, request) + text
            return _completion(request, reply, text, token_ids)

        return self.server.map(ask, requests)

    def scores(self, encoded: Sequence[Encoded]) -> list[tuple[float, bool]]:
        """See `Scorer.scores`.

        Raises:
            ServiceError: The server does not tell the log-probabilities of a prompt.
            ModelError: A text is longer than the context window.
        """

        async def ask(post: Post, numbered: tuple[int, Encoded]) -> tuple[int, Any]:
            number, (ids, tail) = numbered
            greedy = {"max_tokens": 1, "temperature": 0, "top_p": 1.0, "top_k": 0}
            body = {"prompt": ids, **NEUTRAL, **greedy, "prompt_logprobs": 1}
            try:
                reply = await post("/completions", body)
            except Unanswered as why:
                raise ModelError(f"a text cannot be scored: {why}") from None
            (choice,) = reply["choices"]
            places = choice.get("prompt_logprobs")
            if not places:
                raise ServiceError(
                    f"{self.server.url} tells no log-probabilities of a prompt, which these "
                    "benchmarks need",
                    "Serve the model by vLLM, or set backend: {name: transformers}",
                )
            told = [place[str(i)] for place, i in zip(places, ids, strict=True) if place]
            told = told[len(told) - tail :]
            score = sum(token["logprob"] for token in told)
            return number, (score, all(token["rank"] == 1 for token in told))

        scored = dict(self.server.map(ask, enumerate(encoded)))
        return [scored[number] for number in range(len(encoded))]


class ChatModel:
    """A `Generator` over any chat model of a server.

    Args:
        server: It serves the model.
        template: Arguments of its chat template.
    """

    def __init__(self, server: Server, template: TemplateArguments | None = None) -> None:
        self.server = server
        self.template = {"chat_template_kwargs": dict(template)} if template else {}

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        """See `Generator.generate`. How far the seed is kept is up to the server."""

        async def ask(post: Post, request: Request) -> Completion:
            messages = [{"role": m.role, "content": m.content} for m in request.messages]
            body = {"messages": messages, **_settings(request, sampling, seed), **self.template}
            if request.prefill:
                messages.append({"role": "assistant", "content": request.prefill})
                body |= {"add_generation_prompt": False, "continue_final_message": True}
            try:
                reply = await post("/chat/completions", body)
            except Unanswered as why:
                return _unanswered(request, str(why))
            message = reply["choices"][0].get("message") or {}
            if message.get("refusal"):  # said apart, so that it is never read as an answer
                return _unanswered(request, f"the model declined: {message['refusal']}")
            return _completion(request, reply, _said(message.get("content")))

        return self.server.map(ask, requests)

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Refused: a chat model scores no plain text.

        Raises:
            ServiceError: Always.
        """
        raise self._no_likelihoods()

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Refused, as `loglikelihoods`."""
        raise self._no_likelihoods()

    def _no_likelihoods(self) -> ServiceError:
        return ServiceError(
            f"{self.server.model} at {self.server.url} is a chat model: it tells no likelihoods",
            "Use a model folder",
        )


def _said(content: Any) -> str:
    """The text of a message. Some servers send it in parts, with the thoughts in parts of their
    own, and none where the model only thought."""
    if not isinstance(content, list):
        return content or ""
    kept = (part for part in content if part.get("type") in ("text", "output_text"))
    return "".join(part.get("text") or "" for part in kept)


def _settings(request: Request, sampling: Sampling, seed: int) -> dict[str, Any]:
    """Sampling as every server names it. The randomness belongs to the request, as everywhere."""
    digest = hashlib.sha256(f"{seed}\0{request.id}".encode()).digest()
    return {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": int.from_bytes(digest[:4], "big") >> 1,
    }


def _completion(
    request: Request, reply: dict[str, Any], text: str, token_ids: tuple[int, ...] = ()
) -> Completion:
    usage, finish = reply.get("usage") or {}, reply["choices"][0].get("finish_reason")
    if finish == "content_filter":
        return _unanswered(request, f"{WITHHELD}: the answer")
    if finish not in ("stop", "length"):
        return _unanswered(request, f"the server ended the answer: {finish}")
    if not isinstance(text, str):
        raise TypeError(f"the text of an answer is {text!r}")
    return Completion(
        id=request.id,
        text=text,
        token_ids=token_ids,
        entropies=(),
        finish=finish,
        prompt_tokens=usage.get("prompt_tokens", 0),
        tokens=usage.get("completion_tokens", 0),
    )


def _unanswered(request: Request, why: str) -> Completion:
    return Completion(request.id, "", (), (), "error", 0, note=why)

"""One `Generator` protocol and its backends; a backend is one file and one line in
`BackendSpec`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import Field, PositiveFloat, PositiveInt

from sirl.errors import ConfigError, ModelError, ServiceError
from sirl.records import Completion, Message
from sirl.spec import Spec, Url, VariableName

if TYPE_CHECKING:
    from sirl.generation.server import Server


class Sampling(Spec):
    """How a response is sampled.

    Temperature 0 is greedy. Entropy is always that of the raw distribution at
    `entropy_temperature`, whatever the sampling temperature, top-p or top-k.
    """

    max_new_tokens: PositiveInt = 48
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: PositiveInt | None = None
    """The most likely tokens that may be sampled; null is all of them. It comes before top-p."""
    entropy_temperature: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True)
class Request:
    """A chat to answer. `id` names the completion; `prefill` is the start of the answer, forced on
    the model."""

    id: str
    messages: tuple[Message, ...]
    prefill: str = ""


class Generator(Protocol):
    """Anything that answers chats. Completions come in any order; `id` says which request they
    answer.

    The sampled text of a request depends on the request, the sampling and the seed alone, never on
    its neighbours in a batch (up to floating-point ties).
    """

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        """Streams completions; memory is flat in the number of requests. One that cannot be had is
        of `finish: error`, its note says why, and the others go on."""
        ...

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """For (context, continuation) texts: summed log-probability in nats, and whether greedy
        would say it. Of a context that is too long the end is read."""
        ...

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Summed log-probabilities in nats of whole texts, a window at a time."""
        ...


class TransformersBackend(Spec):
    """In-process generation with transformers: the default, on CPU or GPU."""

    provides: ClassVar[frozenset[str]] = frozenset({"entropy", "gradients", "logprobs"})
    """What a target of this backend gives beyond its answers."""
    place: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where it runs, not what it answers."""

    name: Literal["transformers"] = "transformers"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    batch_tokens: PositiveInt = 8192
    """Upper bound of sequences x (prompt + new tokens) in a batch: what bounds memory."""

    def open(self, model: Path, device: str) -> Generator:
        """Loads the model folder; one that is sampled best-of-n stays so."""
        from sirl.generation import best_of_n
        from sirl.generation.transformers import TransformersGenerator

        n = best_of_n.read(model)
        generator = TransformersGenerator.load(
            model, device=device, dtype=self.dtype, batch_tokens=self.batch_tokens
        )
        return generator if n is None else best_of_n.BestOfN(generator, n)


class Endpoint(Spec):
    """How an OpenAI-compatible server is spoken to."""

    api_key_env: VariableName | None = None
    """Name of the environment variable that holds the key; never the key itself."""
    concurrency: PositiveInt = 64
    """Requests under way at a time."""
    timeout: PositiveFloat = 300.0
    """Seconds an answer may take, its retries included."""

    def server(self, url: str, model: str) -> Server:
        """That model at that URL.

        Raises:
            ConfigError: The variable that is to hold the key is not set.
        """
        from sirl.generation.server import Server

        key = os.environ.get(self.api_key_env) if self.api_key_env else None
        if self.api_key_env and not key:
            raise ConfigError(
                f"environment variable {self.api_key_env} is not set, api_key_env names it",
                f"Set it: export {self.api_key_env}=...",
            )
        return Server(url.rstrip("/"), model, key, self.timeout, self.concurrency)


class OpenAIBackend(Endpoint):
    """vLLM servers that have loaded the model folders (`make vllm-server MODEL=...`), one each.

    Whichever of `urls` serves a folder is asked. It serves it under a name that holds the folder's
    digest, so that no other model is taken for it.
    """

    provides: ClassVar[frozenset[str]] = frozenset()
    place: ClassVar[frozenset[str]] = frozenset({"urls", "api_key_env", "concurrency", "timeout"})

    name: Literal["openai"] = "openai"
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Each up to and with `/v1`."""

    def open(self, model: Path, device: str) -> Generator:
        """Connects to the server that has loaded the folder.

        Raises:
            ModelError: The folder is sampled best-of-n, which needs entropies.
            ServiceError: None of the servers has it.
        """
        from sirl.generation import best_of_n
        from sirl.generation.openai import ServedFolder, served_name

        if best_of_n.read(model) is not None:
            raise ModelError(
                f"{model} answers with the best of n samples by entropy, which no server tells",
                "Set backend: {name: transformers}",
            )
        name, silent = served_name(model), ""
        for url in self.urls:
            server = self.server(url, name)
            try:
                if name in server.models():
                    return ServedFolder(server, model)
            except ServiceError as error:
                silent += f"; {error.what}"
        raise ServiceError(
            f"no server of backend.urls serves {model} as it is now ({name}){silent}",
            f"Start one: make vllm-server MODEL={model}",
        )


BackendSpec = Annotated[TransformersBackend | OpenAIBackend, Field(discriminator="name")]

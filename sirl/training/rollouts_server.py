"""Rollouts by a vLLM server, through TRL's client.

A server tells no entropy of the whole vocabulary. TRL's importance-sampling correction makes one
pass of the policy over what was sampled, to compare log-probabilities; the entropy is read off that
pass (see `SirlTrainer`), so it costs none of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from requests.exceptions import ConnectionError as Unreachable

from sirl.errors import ServiceError
from sirl.generation import Request
from sirl.records import Completion
from sirl.training.rollouts import Rollouts

if TYPE_CHECKING:
    from trl import GRPOTrainer


class ServerRollouts(Rollouts):
    """Samples by a server that TRL keeps in step with the policy."""

    def __call__(
        self, prompts: Sequence[list[dict[str, str]]], trainer: GRPOTrainer
    ) -> dict[str, list[Any]]:
        """See `Rollouts.__call__`."""
        self.awaits_entropy = True
        return super().__call__(prompts, trainer)

    def measure(self, entropies: torch.Tensor) -> None:
        """See `Rollouts.measure`."""
        rows = entropies.float().tolist()
        self.last = [
            dataclasses.replace(
                done, entropies=tuple(round(value, 6) for value in row[: len(done.token_ids)])
            )
            for done, row in zip(self.last, rows, strict=True)
        ]
        self.awaits_entropy = False

    @contextmanager
    def starting(self) -> Iterator[None]:
        """TRL connects to the server.

        Raises:
            ServiceError: No server answers, or there is no GPU to push weights from.
        """
        try:
            yield
        except (Unreachable, NotImplementedError) as error:
            raise ServiceError(f"train.rollouts: {error}", "See docs/deployment.md") from error

    def _recall(self, ids: Sequence[str]) -> dict[str, Completion] | None:
        """All processes recall, or none: they ask the server together."""
        done = super()._recall(ids)
        return done if all(gather_object([done is not None])) else None

    def _sample(self, requests: Sequence[Request], trainer: GRPOTrainer) -> Iterable[Completion]:
        """TRL has pushed the weights already."""
        client = trainer.vllm_generation
        # No seed: the server would draw the responses to every prompt from the same noise.
        client.generation_kwargs = {"stop_token_ids": sorted(self.mirror.generator.end_ids)}
        prompts = [self.mirror.generator.encode(request) for request in requests]
        _, tokens, logprobs, _ = client.generate(prompts, None, trainer.num_generations)
        for request, prompt, row, told in zip(requests, prompts, tokens, logprobs, strict=True):
            known = [math.nan if first is None else first for (first, *_) in told]
            yield self.mirror.generator.completion(request, len(prompt), row, (), known)

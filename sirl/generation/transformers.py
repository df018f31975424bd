"""Generation in this process with transformers: length-sorted dynamic batches that share what their
prompts begin with, entropy recorded while sampling.

Sampling is by inverse transform with one uniform number a token, drawn from a stream seeded by the
request's id: the response to a request does not depend on which batch it fell into, so an
interrupted run resumes as if undisturbed (in exact arithmetic; in bf16 a near-tie may fall
differently in a batch of another shape).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from sirl.entropy import entropy
from sirl.errors import ModelError
from sirl.generation import Request, Sampling
from sirl.generation.likelihoods import Encoded, Scorer
from sirl.generation.prefill import positions, prefill
from sirl.generation.tokens import decode, encode, thought_opened
from sirl.models import end_token_ids, load_model, load_tokenizer
from sirl.records import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 512
"""Requests sorted by length together: long enough for even batches, short enough to stream."""

MAX_BATCH = 64


class EntropySampler(LogitsProcessor):  # type: ignore[misc]
    """Records the entropy of each step's raw logits, then decides the token itself.

    It hands `generate` logits that leave one token possible, so that greedy search returns the
    sampled one.

    Args:
        uniforms: (B, T) in [0, 1): the randomness of each token.
        sampling: Temperature, top-k, top-p and the temperature of the entropy.
    """

    def __init__(self, uniforms: torch.Tensor, sampling: Sampling) -> None:
        self.uniforms = uniforms
        self.sampling = sampling
        self.entropies: list[torch.Tensor] = []  # T of (B,), nats
        self.logprobs: list[torch.Tensor] = []  # T of (B,), nats; none when greedy

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        uniform = self.uniforms[:, len(self.entropies)]  # (B,)
        p, log_p = _distribution(scores, self.sampling.entropy_temperature)  # (B, V)
        self.entropies.append(entropy(p, log_p))  # (B,)
        if self.sampling.temperature == 0:
            return scores
        if self.sampling.temperature != self.sampling.entropy_temperature:
            p, log_p = _distribution(scores, self.sampling.temperature)  # (B, V)
        chosen = self._invert(p, uniform).unsqueeze(1)  # (B, 1)
        self.logprobs.append(log_p.gather(1, chosen).squeeze(1))  # (B,)
        one_hot = torch.full_like(scores, -torch.inf)  # (B, V)
        return one_hot.scatter_(1, chosen, 0.0)  # type: ignore[return-value]

    def _invert(self, p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """The tokens (B,) at which the summed mass of p (B, V), cut to top-k and then to top-p of
        what is left, passes the uniforms."""
        if self.sampling.top_p < 1 or self.sampling.top_k is not None:
            ordered, order = p.sort(dim=-1, descending=True, stable=True)  # (B, V)
            if self.sampling.top_k is not None:
                ordered[:, self.sampling.top_k :] = 0.0
            # A token stays when the mass before it is below top_p; the first always stays.
            bound = self.sampling.top_p * ordered.sum(-1, keepdim=True)  # (B, 1)
            ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= bound, 0.0)
            p = torch.zeros_like(p).scatter_(1, order, ordered)
        mass = p.cumsum(-1)  # (B, V)
        # The first token whose mass is strictly above the uniform, scaled to the mass that is
        # there: never a token of probability 0. Rounding must not lift a uniform near 1 to it all.
        whole = mass[:, -1:]  # (B, 1)
        threshold = uniform.to(mass).unsqueeze(1) * whole  # (B, 1)
        threshold = torch.minimum(threshold, torch.nextafter(whole, torch.zeros_like(whole)))
        return torch.searchsorted(mass, threshold, right=True).squeeze(1)


def _distribution(logits: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and their logarithms, (B, V) float32, of logits (B, V)."""
    log_p = (logits.float() / temperature).log_softmax(-1)  # (B, V)
    return log_p.exp(), log_p


def uniforms(request_id: str, seed: int, count: int) -> torch.Tensor:
    """(count,) numbers in [0, 1) that belong to this request and seed alone."""
    digest = hashlib.sha256(f"{seed}\0{request_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _too_long(request: Request, length: int, room: int) -> Completion:
    """The answer to a chat that leaves no room for one."""
    note = f"context window exceeded: {length} tokens, there is room for {max(room, 0)}"
    return Completion(request.id, "", (), (), "error", length, note=note)


class TransformersGenerator(Scorer):
    """A `Generator` over one loaded model.

    Args:
        model: In eval mode, on its device. Its generation config is replaced: what a checkpoint
            asks for there would stand between the logits and our sampling.
        tokenizer: Left-padding, with a chat template.
        batch_tokens: Upper bound of sequences x (prompt + new tokens) in a batch.
        context: Longest prompt and response in tokens; None does not look.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int,
        context: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer: Any = tokenizer
        self.batch_tokens = batch_tokens
        self.context = context
        self.end_ids = end_token_ids(model.generation_config, tokenizer)
        model.generation_config = GenerationConfig(
            do_sample=False,
            use_cache=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(self.end_ids),
        )

    @classmethod
    def load(
        cls, folder: Path, *, device: str, dtype: Literal["float32", "bfloat16"], batch_tokens: int
    ) -> TransformersGenerator:
        """Loads a model folder onto a device."""
        model: Any = load_model(folder, dtype)
        context = getattr(model.config, "max_position_embeddings", None)
        return cls(model.to(device).eval(), load_tokenizer(folder), batch_tokens, context)

    def encode(self, request: Request) -> list[int]:
        """Token ids of the templated chat, ready for the assistant's answer, the prefill
        included."""
        return encode(self.tokenizer, request)

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, *, seed: int = 0
    ) -> Iterator[Completion]:
        """See `Generator.generate`. Two equal calls give equal bytes."""
        stream = iter(requests)
        while window := list(islice(stream, WINDOW)):
            encoded = [(self.encode(request), request) for request in window]
            room = (self.context or sys.maxsize) - sampling.max_new_tokens
            for ids, request in encoded:
                if len(ids) > room:
                    yield _too_long(request, len(ids), room)
            encoded = sorted(
                (pair for pair in encoded if len(pair[0]) <= room), key=lambda pair: len(pair[0])
            )
            for batch in self._batches(encoded, sampling.max_new_tokens):
                yield from self._generate_batch(batch, sampling, seed)

    def _batches(
        self, encoded: Sequence[tuple[list[int], Request]], new_tokens: int
    ) -> Iterator[Sequence[tuple[list[int], Request]]]:
        """Cuts a length-sorted list into batches under the token bound; the longest come first."""
        end = len(encoded)
        while end > 0:
            longest = len(encoded[end - 1][0]) + new_tokens
            size = max(1, min(MAX_BATCH, self.batch_tokens // longest))
            yield encoded[max(0, end - size) : end]
            end -= size

    @torch.no_grad()
    def _generate_batch(
        self, batch: Sequence[tuple[list[int], Request]], sampling: Sampling, seed: int
    ) -> Iterator[Completion]:
        new = sampling.max_new_tokens
        read = prefill(self.model, [ids for ids, _ in batch], self.tokenizer.pad_token_id)
        recorder = EntropySampler(
            torch.stack([uniforms(request.id, seed, new) for _, request in batch]).to(
                self.model.device
            ),
            sampling,
        )
        output = self.model.generate(
            read.input_ids,
            attention_mask=read.attention_mask,
            past_key_values=read.past_key_values,
            max_new_tokens=new,
            logits_processor=LogitsProcessorList([recorder]),
        )  # (B, P + T)
        tokens = output[:, read.input_ids.shape[1] :].tolist()  # (B, T)
        entropies = torch.stack(recorder.entropies, dim=1).tolist()  # (B, T)
        logprobs: list[list[float]] = [[] for _ in batch]
        if recorder.logprobs:
            logprobs = torch.stack(recorder.logprobs, dim=1).tolist()  # (B, T)
        for index, (ids, request) in enumerate(batch):
            yield self.completion(
                request, len(ids), tokens[index], entropies[index], logprobs[index]
            )

    def completion(
        self,
        request: Request,
        prompt_tokens: int,
        row: Sequence[int],
        entropies: Sequence[float],
        logprobs: Sequence[float],
    ) -> Completion:
        """What `request` got: the sampled tokens up to the first end token."""
        ends = [index for index, token in enumerate(row) if token in self.end_ids]
        length = ends[0] + 1 if ends else len(row)
        return Completion(
            id=request.id,
            text=thought_opened(self.tokenizer, request) + decode(self.tokenizer, row[:length]),
            token_ids=tuple(row[:length]),
            entropies=tuple(round(value, 6) for value in entropies[:length]),
            finish="stop" if ends else "length",
            prompt_tokens=prompt_tokens,
            logprobs=tuple(round(value, 6) for value in logprobs[:length]),
        )

    @torch.no_grad()
    def scores(self, encoded: Sequence[Encoded]) -> list[tuple[float, bool]]:
        """See `Scorer.scores`. Of ids that are too many the last are read, as in lm-eval.

        Raises:
            ModelError: What is to be scored is longer than the context window.
        """
        window = self.context or sys.maxsize - 1
        longest = max((tail for _, tail in encoded), default=0)
        if longest > window:
            raise ModelError(
                f"a text of {longest} tokens cannot be scored: the context window is of {window}"
            )
        encoded = [(ids[-window - 1 :], tail) for ids, tail in encoded]
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index][0]))
        results: list[tuple[float, bool]] = [(0.0, True)] * len(encoded)
        start = 0
        while start < len(order):
            size = max(1, min(MAX_BATCH, self.batch_tokens // len(encoded[order[start]][0])))
            chosen = order[start : start + size]
            scored = self._score_batch([encoded[index] for index in chosen])
            for index, score in zip(chosen, scored, strict=True):
                results[index] = score
            start += size
        return results

    def _score_batch(self, batch: Sequence[Encoded]) -> list[tuple[float, bool]]:
        inputs = self.tokenizer.pad(
            {"input_ids": [ids[:-1] for ids, _ in batch]}, return_tensors="pt", padding_side="left"
        ).to(self.model.device)  # (B, L)
        longest = max(tail for _, tail in batch)
        position_ids = positions(inputs["attention_mask"])  # (B, L)
        logits = self.model(
            **inputs, position_ids=position_ids, logits_to_keep=longest
        ).logits  # (B, longest, V)
        results = []
        for row, (ids, tail) in enumerate(batch):
            target = torch.tensor(ids[len(ids) - tail :], device=logits.device)  # (tail,)
            log_p = logits[row, longest - tail :].float().log_softmax(-1)  # (tail, V)
            chosen = log_p.gather(1, target.unsqueeze(1)).sum()
            results.append((float(chosen), bool((log_p.argmax(-1) == target).all())))
        return results

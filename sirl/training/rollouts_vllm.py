"""Rollouts by a vLLM engine that TRL makes in this process, colocated with training.

A logits processor of the engine sees each step's raw logits of the whole batch. It records their
entropy and decides the token itself, as in generation with transformers: from the request's own
stream of uniforms. Equal logits so give equal responses, whichever backend samples.

TRL pushes the weights before it asks for rollouts, and corrects the loss for what vLLM's
log-probabilities differ from the policy's. The `Mirror` serves the probe and the anchor alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from trl.generation import vllm_generation
from vllm import LLM, SamplingParams
from vllm.model_executor.layers import utils as layers
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from sirl.generation import Request, Sampling
from sirl.generation.transformers import EntropySampler, TransformersGenerator, uniforms
from sirl.records import Completion
from sirl.training.rollouts import Rollouts

if TYPE_CHECKING:
    from trl import GRPOTrainer

EXTRA = "sirl"
"""Our key in a request's `extra_args`."""

Recorded = dict[str, dict[int, tuple[float, ...]]]
"""Request id -> place of a token in its response -> entropy and, unless greedy, log-probability."""


@dataclass(frozen=True)
class Row:
    """A request in a row of the engine's batch. `tokens` is the engine's own list of what it has
    sampled for it."""

    id: str
    uniforms: torch.Tensor
    sampling: Sampling
    tokens: list[int]

    @classmethod
    def of(cls, params: SamplingParams, prompt: list[int] | None, tokens: list[int]) -> Row:
        """The row of a request that `sample` sent."""
        sent = params.extra_args[EXTRA]
        sampling = Sampling(**sent["sampling"])
        stream = uniforms(sent["id"], sent["seed"], sampling.max_new_tokens)
        return cls(sent["id"], stream, sampling, tokens)


class EntropyProcessor(LogitsProcessor):  # type: ignore[misc]
    """Records entropies and log-probabilities in the engine, and picks the tokens.

    Rows move in the engine's batch as requests come and go. What is recorded belongs to a request
    and a place in its response. A prompt that is read in pieces, or again after a preemption, shows
    logits for one place several times; the last ones are those sampled from.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: dict[int, Row] = {}
        self.passes: list[tuple[list[tuple[str, int]], torch.Tensor]] = []

    def is_argmax_invariant(self) -> bool:
        """It decides the argmax, so the engine shows it raw logits, before any temperature."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows the rows."""
        process_dict_updates(self.rows, batch_update, Row.of)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, V) raw logits in; out, logits that leave one token possible in each row."""
        rows = [self.rows[index] for index in range(len(logits))]
        (sampling,) = {row.sampling for row in rows}
        places = [len(row.tokens) for row in rows]
        uniform = torch.stack([r.uniforms[p] for r, p in zip(rows, places, strict=True)])  # (B,)
        sampler = EntropySampler(uniform.unsqueeze(1).to(logits.device), sampling)
        picked: torch.Tensor = sampler(torch.LongTensor(), logits)  # type: ignore[arg-type]  # (B, V)
        seen = torch.stack([*sampler.entropies, *sampler.logprobs], dim=1)  # (B, 2), greedy (B, 1)
        self.passes.append(
            ([(r.id, place) for r, place in zip(rows, places, strict=True)], seen),
        )
        return picked

    def take(self) -> Recorded:
        """What was recorded since the last time."""
        recorded: Recorded = {}
        for places, seen in self.passes:
            for (id, place), values in zip(places, seen.tolist(), strict=True):
                recorded.setdefault(id, {})[place] = tuple(values)
        self.passes.clear()
        return recorded


def sample(
    engine: LLM,
    generator: TransformersGenerator,
    requests: Sequence[Request],
    sampling: Sampling,
    seed: int,
) -> Iterator[Completion]:
    """Responses of an engine that has the `EntropyProcessor`, with what it recorded.

    Args:
        engine: In this process.
        generator: Its tokenizer and end tokens are used.
        requests: Their ids must differ.
        sampling: Of all of them.
        seed: With a request's id, it fixes the randomness of each token.
    """
    prompts = [{"prompt_token_ids": generator.encode(request)} for request in requests]
    params = [
        SamplingParams(
            temperature=0.0,  # the processor leaves one token possible
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=sorted(generator.end_ids),
            detokenize=False,
            extra_args={EXTRA: {"id": request.id, "seed": seed, "sampling": sampling.model_dump()}},
        )
        for request in requests
    ]
    outputs = engine.generate(prompts, params, use_tqdm=False)
    (recorded,) = engine.collective_rpc(_take)
    for request, output in zip(requests, outputs, strict=True):
        tokens = output.outputs[0].token_ids
        seen = [recorded[request.id][place] for place in range(len(tokens))]
        yield generator.completion(
            request,
            len(output.prompt_token_ids),
            tokens,
            [values[0] for values in seen],
            [values[1] for values in seen if len(values) > 1],
        )


def _take(worker: Any) -> Recorded:
    """Runs where the engine's worker is: what its processor holds lives there."""
    processors = worker.model_runner.input_batch.logitsprocs.all
    (ours,) = [processor for processor in processors if isinstance(processor, EntropyProcessor)]
    return ours.take()


class EngineRollouts(Rollouts):
    """Samples by the engine that TRL keeps in this process."""

    @contextmanager
    def starting(self) -> Iterator[None]:
        """TRL makes the engine and names its arguments; what sampling needs is added to them."""
        model = self.mirror.generator.model
        on_cpu = model.device.type == "cpu"
        # The newer runner takes processors of another interface.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        engine = functools.partial(
            LLM,
            generation_config="vllm",  # the checkpoint's sets no default
            dtype=model.dtype,
            enforce_eager=on_cpu,
            async_scheduling=False,  # a row's list of tokens is then what was sampled
            logits_processors=[EntropyProcessor],
        )
        with replaced(vllm_generation, "LLM", engine), ExitStack() as stack:
            if on_cpu:
                os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # training's threads
                stack.enter_context(reloadable())
            yield

    def _sample(self, requests: Sequence[Request], trainer: GRPOTrainer) -> Iterable[Completion]:
        """TRL has pushed the weights already."""
        engine = trainer.vllm_generation.llm
        return sample(engine, self.mirror.generator, requests, self.sampling, self.seed)


def reloadable() -> AbstractContextManager[None]:
    """An engine made within can be given new weights on a CPU too, where vLLM packs linear layers
    and forgets what it packed: loading fails then, and a head tied to the embedding keeps the old
    weights without a word."""

    def unpacked(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    return replaced(layers, "dispatch_cpu_unquantized_gemm", unpacked)


@contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """A module's attribute is `value` within."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)

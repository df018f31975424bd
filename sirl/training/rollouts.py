"""Rollouts for TRL's `rollout_func`: sample from a copy of the policy and record entropy while
sampling.

The copy is in the compute type (bf16 by default; the policy keeps float32 master weights), which on
a CPU samples several times faster than the policy under autocast. Its weights are refreshed once an
optimiser step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from sirl.generation import Request, Sampling
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Completion, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOTrainer


class Rollouts:
    """Samples the responses of a step. `last` and `prompts` hold those of the newest step.

    Args:
        policy: The model about to be trained, before a trainer touches it.
        tokenizer: Its tokenizer.
        sampling: Temperature and length of training responses.
        dtype: Compute type of the copy.
        seed: With the step and the place in the batch, it fixes every sampled token.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        *,
        dtype: torch.dtype,
        batch_tokens: int,
        seed: int,
    ) -> None:
        mirror: Any = copy.deepcopy(policy).to(dtype).eval().requires_grad_(False)
        self.generator = TransformersGenerator(mirror, tokenizer, batch_tokens)
        self.sampling = sampling
        self.seed = seed
        self.last: list[Completion] = []
        self.prompts: list[str] = []
        self._synced_step: int | None = None

    @torch.no_grad()
    def sync(self, policy: torch.nn.Module, step: int) -> None:
        """Copies the policy's weights of optimiser step `step` into the sampling copy, once."""
        if step == self._synced_step:
            return
        mirror = self.generator.model
        mirror.to(next(policy.parameters()).device)
        mine = dict(mirror.named_parameters())
        for name, weight in policy.named_parameters():
            if weight.requires_grad:  # with a low-rank adapter, the adapter alone
                mine[name].copy_(weight)
        self._synced_step = step

    def __call__(
        self, prompts: Sequence[list[dict[str, str]]], trainer: GRPOTrainer
    ) -> dict[str, list[Any]]:
        """TRL's rollout contract: prompts come repeated, `group` times each.

        Returns:
            `prompt_ids` and `completion_ids` (B lists of ids), `logprobs` (unused on-policy: zeros)
            and the extra field `entropy`, (B,) in nats, that the reward reads.
        """
        step = int(trainer.state.global_step)
        self.sync(trainer.accelerator.unwrap_model(trainer.model), step)
        rank = int(trainer.accelerator.process_index)
        requests = [
            Request(f"{step}/{rank}/{index}", tuple(Message(**turn) for turn in prompt))  # type: ignore[arg-type]
            for index, prompt in enumerate(prompts)
        ]
        done = {c.id: c for c in self.generator.generate(requests, self.sampling, seed=self.seed)}
        self.last = [done[request.id] for request in requests]
        self.prompts = [request.messages[-1].content for request in requests]
        return {
            "prompt_ids": [self.generator.encode(request) for request in requests],
            "completion_ids": [list(completion.token_ids) for completion in self.last],
            "logprobs": [[0.0] * len(completion.token_ids) for completion in self.last],
            "entropy": [completion.entropy for completion in self.last],
        }

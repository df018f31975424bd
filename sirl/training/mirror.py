"""The copy of the policy that samples.

It is in the compute type (bf16 by default; the policy keeps float32 master weights), which on a CPU
samples several times faster than the policy under autocast. Its weights are refreshed once an
optimiser step.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from sirl.generation.transformers import TransformersGenerator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sirl.config import TrainParams


class Mirror:
    """A copy of the policy.

    Attributes:
        generator: It samples from the copy.

    Args:
        policy: The model about to be trained, before a trainer touches it.
        tokenizer: Its tokenizer.
        params: Section `train`.
        device: Where the copy samples.
    """

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        params: TrainParams,
        device: str,
    ) -> None:
        model = _copy(policy, getattr(torch, params.dtype)).to(device)
        self.generator = TransformersGenerator(model, tokenizer, params.rollout_tokens)
        self._synced_step: int | None = None

    @torch.no_grad()
    def sync(self, policy: torch.nn.Module, step: int) -> None:
        """Copies the policy's weights of optimiser step `step` into the copy, once."""
        if step == self._synced_step:
            return
        model = self.generator.model
        model.to(next(policy.parameters()).device)
        mine = dict(model.named_parameters())
        for name, weight in policy.named_parameters():
            if weight.requires_grad:  # with a low-rank adapter, the adapter alone
                mine[name].copy_(weight)
        self._synced_step = step


def _copy(policy: PreTrainedModel, dtype: torch.dtype) -> Any:
    """A copy to sample from, its weights in `dtype`.

    Buffers keep their type: rounded rotary frequencies would turn late tokens to wrong places.
    Weights ask for a gradient that nobody takes: torch multiplies the last hidden states of B
    prompts by a head that asks for none as B products, and copies the head B times to do so.
    """
    model: Any = copy.deepcopy(policy).eval().requires_grad_(True)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model

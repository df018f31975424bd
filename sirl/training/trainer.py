"""TRL's GRPO trainer plus the anchor term. Nothing else is overridden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from trl import GRPOTrainer

from sirl.training import anchor


class SirlTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose loss also holds the policy to the base model on benign prompts.

    Args:
        anchor_rows: Benign prompts with the base model's answers; walked in order, a slice a step.
        anchor_weight: Weight of the KL term; 0 leaves the paper's plain method.
        anchor_per_step: Anchor prompts an optimiser step, over all micro-batches.
    """

    def __init__(
        self,
        *args: Any,
        anchor_rows: list[anchor.AnchorRow],
        anchor_weight: float,
        anchor_per_step: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.anchor_rows = anchor_rows
        self.anchor_weight = anchor_weight
        self.anchor_per_step = anchor_per_step

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """TRL's loss, plus this micro-batch's share of the anchor."""
        loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not (self.model.training and self.anchor_weight and self.anchor_rows):
            return loss
        divergence = self._anchor_divergence(model)
        self._metrics["train"]["anchor_kl"].append(divergence.item())
        parts = int(self.current_gradient_accumulation_steps)
        return loss + self.anchor_weight * divergence / parts

    def _anchor_divergence(self, model: torch.nn.Module) -> torch.Tensor:
        """KL on the next slice of anchor rows, which the optimiser step alone decides."""
        parts = int(self.current_gradient_accumulation_steps)
        size = max(1, self.anchor_per_step // parts)
        place = self.state.global_step * parts + self._step % parts
        start = place * size
        chosen = [self.anchor_rows[(start + i) % len(self.anchor_rows)] for i in range(size)]
        batch = anchor.collate(chosen, self.processing_class.pad_token_id, self.accelerator.device)
        with torch.no_grad(), self._as_reference() as reference, self.accelerator.autocast():
            target = anchor.predicting_logits(reference, batch)  # (N, V)
        with self.accelerator.autocast():
            policy = anchor.predicting_logits(model, batch)  # (N, V)
        return anchor.divergence(target, policy)

    def _as_reference(self) -> AbstractContextManager[Any]:
        """The base model: TRL's reference copy, or the policy with its adapter switched off."""
        if self.ref_model is not None:
            return nullcontext(self.ref_model)
        return _adapter_off(self.accelerator.unwrap_model(self.model))


@contextmanager
def _adapter_off(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model

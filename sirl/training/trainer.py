"""TRL's GRPO trainer plus the anchor term, and on a CPU a cheaper way to the same
log-probabilities. Rollouts that know no entropy are told it. Nothing else is overridden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from trl import GRPOTrainer

from sirl.errors import TrainingError
from sirl.training import anchor, scoring
from sirl.training.rollouts import Rollouts


class SirlTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose loss also holds the policy to the base model on benign prompts.

    Args:
        rollouts: Where the step's responses come from.
        anchor_rows: Benign prompts with the base model's answers; walked in order, a slice a step.
        anchor_weight: Weight of the KL term; 0 leaves the paper's plain method.
        anchor_per_step: Anchor prompts an optimiser step, over all micro-batches.
    """

    def __init__(
        self,
        *args: Any,
        rollouts: Rollouts,
        anchor_rows: list[anchor.AnchorRow],
        anchor_weight: float,
        anchor_per_step: int,
        **kwargs: Any,
    ) -> None:
        with rollouts.starting():
            super().__init__(*args, rollout_func=rollouts, **kwargs)
        self.rollouts = rollouts
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
        """TRL's loss, plus this micro-batch's share of the anchor.

        Raises:
            TrainingError: The loss is not finite.
        """
        loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training and self.anchor_weight and self.anchor_rows:
            loss = loss + self._anchor_loss(model)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"step {self.state.global_step + 1}: the loss is not finite, on prompts "
                + ", ".join(sorted(set(self.rollouts.prompt_ids))),
                "Lower train.learning_rate, or set train.dtype to float32",
            )
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: torch.nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """See `_score`. The first pass after sampling is that of the importance-sampling
        correction: where the sampler could not tell the entropies, this same pass does."""
        wanted = self.rollouts.awaits_entropy
        if wanted:
            kwargs["compute_entropy"] = True
        scored = self._score(model, *args, **kwargs)
        if wanted:
            assert model is self.model and scored[1] is not None
            self.rollouts.measure(scored[1])
        return scored

    def _score(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """TRL's, on a CPU with logits at the responses alone.

        TRL leaves the prompt out only where it has Triton. Elsewhere its chunked head scores every
        position, prompt and padding included, and multiplies in float32 on the way back: on two
        cores that took most of a step.
        """
        if input_ids.device.type != "cpu" or more.get("compute_aux_loss"):
            scored: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, **more
                )
            )
            return scored
        with self.accelerator.autocast():
            parts = [
                scoring.score(model, ids, mask, logits_to_keep, self.temperature)
                for ids, mask in zip(
                    torch.split(input_ids, batch_size or len(input_ids)),
                    torch.split(attention_mask, batch_size or len(input_ids)),
                    strict=True,
                )
            ]
        logps, entropies = map(torch.cat, zip(*parts, strict=True))
        return logps, entropies, None

    def _anchor_loss(self, model: torch.nn.Module) -> torch.Tensor:
        """The weighted anchor term of this micro-batch, scaled so that the micro-batches of all
        processes add up to the weight times the mean KL over the step's rows."""
        parts = int(self.current_gradient_accumulation_steps)
        world = int(self.accelerator.num_processes)
        rows = self._anchor_rows(parts * world, (self._step % parts) * world)
        # Processes call the model alike or wait for each other for ever: one without a row of its
        # own runs one at no weight.
        batch = anchor.collate(
            rows or self.anchor_rows[:1],
            self.processing_class.pad_token_id,
            self.accelerator.device,
        )
        with torch.no_grad(), self._as_reference() as reference, self.accelerator.autocast():
            target = anchor.predicting_logits(reference, batch)  # (N, V)
        with self.accelerator.autocast():
            policy = anchor.predicting_logits(model, batch)  # (N, V)
        total = anchor.divergence(target, policy, batch["answer_mask"].sum(-1)) * bool(rows)
        everywhere = self.accelerator.reduce(total.detach(), reduction="sum").item()
        self._metrics["train"]["anchor_kl"].append(everywhere * parts / self.anchor_per_step)
        # Gradients add up over micro-batches and are averaged over processes.
        return self.anchor_weight * total / self.anchor_per_step * world

    def _anchor_rows(self, chunks: int, first: int) -> list[anchor.AnchorRow]:
        """This process's rows of this micro-batch; the optimiser step alone decides the step's."""
        start = self.state.global_step * self.anchor_per_step
        step = [
            self.anchor_rows[(start + index) % len(self.anchor_rows)]
            for index in range(self.anchor_per_step)
        ]
        return step[first + int(self.accelerator.process_index) :: chunks]

    def _as_reference(self) -> AbstractContextManager[Any]:
        """The base model: TRL's reference copy, or the policy with its adapter switched off."""
        if self.ref_model is not None:
            return nullcontext(self.ref_model)
        return _adapter_off(self.accelerator.unwrap_model(self.model))


@contextmanager
def _adapter_off(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model

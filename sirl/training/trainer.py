"""TRL's GRPO trainer plus the anchor term, and on a CPU a cheaper way to the same
log-probabilities. Rollouts that know no entropy are told it. Nothing else is overridden."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOTrainer

from sirl.errors import TrainingError
from sirl.training import anchor, scoring
from sirl.training.rollouts import Rollouts

if TYPE_CHECKING:
    from sirl.config import AnchorParams

log = logging.getLogger(__name__)


class SirlTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose loss also holds the policy to the base model on benign prompts.

    Args:
        rollouts: Where the step's responses come from.
        anchor_params: The anchor's settings; None leaves the paper's plain method.
        anchor_rows: Benign prompts with the base model's answers; walked in order, a slice a step.
    """

    def __init__(
        self,
        *args: Any,
        rollouts: Rollouts,
        anchor_params: AnchorParams | None,
        anchor_rows: Sequence[anchor.AnchorRow],
        **kwargs: Any,
    ) -> None:
        with rollouts.starting():
            super().__init__(*args, rollout_func=rollouts, **kwargs)
        self.rollouts = rollouts
        self.anchor_params = anchor_params
        self.anchor_rows = anchor_rows
        self.lay_out = anchor.pack
        if anchor_rows and not anchor.packable(self.model, anchor_rows):
            log.info("this model sees other rows of a packed sequence: the anchor's are padded")
            self.lay_out = anchor.pad

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
        if self.model.training and self.anchor_params and self.anchor_rows:
            loss = loss + self._anchor_loss(model, self.anchor_params)
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
        compute_entropy: bool = False,
        **more: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """TRL's, on a CPU with logits at the responses alone and each prompt read once.

        TRL leaves the prompt out only where it has Triton. Elsewhere its chunked head scores every
        position, prompt and padding included, and multiplies in float32 on the way back: on two
        cores that took most of a step.
        """
        if input_ids.device.type != "cpu" or more.get("compute_aux_loss"):
            scored: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    **more,
                )
            )
            return scored
        with self.accelerator.autocast():
            parts = [
                scoring.score(
                    model,
                    ids,
                    mask,
                    logits_to_keep,
                    self.temperature,
                    with_entropy=compute_entropy,
                    share_prompts=not self.args.gradient_checkpointing,
                )
                for ids, mask in zip(
                    torch.split(input_ids, batch_size or len(input_ids)),
                    torch.split(attention_mask, batch_size or len(input_ids)),
                    strict=True,
                )
            ]
        logps, entropies = zip(*parts, strict=True)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _anchor_loss(self, model: torch.nn.Module, params: AnchorParams) -> torch.Tensor:
        """The weighted anchor term of this micro-batch, scaled so that the micro-batches of all
        processes add up to the weight times the mean KL over the step's rows."""
        parts = int(self.current_gradient_accumulation_steps)
        world = int(self.accelerator.num_processes)
        step, chunks = self._anchor_rows(params.prompts_per_step), parts * world
        rows = step[(self._step % parts) * world + int(self.accelerator.process_index) :: chunks]
        # Processes call the model alike or wait for each other for ever: as often as the one with
        # the most rows.
        passes = math.ceil(len(step) / chunks / anchor.ROWS)
        packs = [rows[index * anchor.ROWS :][: anchor.ROWS] for index in range(passes)]
        total = torch.stack([self._divergence(model, pack, params) for pack in packs]).sum()
        everywhere = self.accelerator.reduce(total.detach(), reduction="sum").item()
        self._metrics["train"]["anchor_kl"].append(everywhere * parts / params.prompts_per_step)
        # Gradients add up over micro-batches and are averaged over processes.
        return params.weight * total / params.prompts_per_step * world

    def _divergence(
        self, model: torch.nn.Module, rows: Sequence[anchor.AnchorRow], params: AnchorParams
    ) -> torch.Tensor:
        """KL(reference || policy) summed over rows; of none, a row is read at no weight."""
        batch = self.lay_out(rows or self.anchor_rows[:1], self.accelerator.device)
        with torch.no_grad(), self._as_reference() as reference, self.accelerator.autocast():
            target = anchor.predicting_logits(reference, batch) / params.temperature  # (N, V)
        with self.accelerator.autocast():
            policy = anchor.predicting_logits(model, batch)  # (N, V)
        return anchor.divergence(target, policy, batch.lengths) * bool(rows)

    def _anchor_rows(self, count: int) -> list[anchor.AnchorRow]:
        """The rows of this optimiser step, which alone decides them."""
        start = self.state.global_step * count
        return [self.anchor_rows[(start + i) % len(self.anchor_rows)] for i in range(count)]

    def _as_reference(self) -> AbstractContextManager[Any]:
        """The base model: TRL's reference copy, or the policy with its adapter switched off."""
        if self.ref_model is not None:
            return nullcontext(self.ref_model)
        return _adapter_off(self.accelerator.unwrap_model(self.model))


@contextmanager
def _adapter_off(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model

"""GRPO with a reward model, which SIRL does without: trained first, by TRL's RewardTrainer, on the
base model's own refusals against its own compliance; or any that the user has."""

from __future__ import annotations

import gc
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from sirl import model_files
from sirl.errors import ModelError
from sirl.generation.transformers import TransformersGenerator
from sirl.judges.refusal import outcome
from sirl.models import check, load_model, load_tokenizer
from sirl.training import budget, checkpoints, labels, loop, policy, sirl
from sirl.training.labels import Labeller
from sirl.training.rewards import Reward
from sirl.training.run import Job, Result

log = logging.getLogger(__name__)


def train(job: Job, folder: Path | None, learning_rate: float, label: Labeller = outcome) -> Result:
    """Trains `job.base` by GRPO on a reward model's score.

    Args:
        job: The run.
        folder: A sequence-classification model of one label; None trains one first.
        learning_rate: Of the reward model.
        label: What a response is.

    Raises:
        TrainingError: Too few prompts have both a refusal and a compliance; and as `sirl.train`.
        ModelError: The folder holds no such model.
    """
    unlabelled = 0
    if folder is None:
        folder, unlabelled = fit(job, learning_rate, label)
        gc.collect()  # of the reward model's trainer and its optimiser
    result = sirl.train(job, score(folder, job))
    return replace(result, unlabelled=unlabelled)


def same(folder: Path, digest: str | None) -> None:
    """Checks that a reward model is the one that params.yaml means: by its path alone, neither DVC
    nor a resumed run would notice another.

    Raises:
        ModelError: It is not there, is another, or cannot be used.
    """
    if not folder.is_dir():
        raise ModelError(f"reward model {folder} is not a folder", "Check train.method.model")
    model_files.refuse_links(folder)
    found = model_files.digest(folder)
    if found != digest:
        raise ModelError(
            f"reward model {folder} is {found}, params.yaml means {digest}",
            f"Set train.method.digest to {found} if it is the one you want",
        )
    check(folder, "SEQ_CLS")


def fit(job: Job, learning_rate: float, label: Labeller) -> tuple[Path, int]:
    """Trains a reward model in the state folder, for as many steps as GRPO will have.

    Returns:
        Its folder, and how many prompts gave no pair.
    """
    check(job.base)
    state = job.state / "reward"
    out = state / "model"
    pairs, asked = _pairs(job, label)
    rows = labels.rows_of_steps(
        [pair.conversations() for pair in pairs], job, "both a refusal and a compliance"
    )
    if not out.exists():
        args = loop.arguments(job) | loop.row_batches(job.params, responses=2)
        args |= {"output_dir": str(state), "learning_rate": learning_rate}
        args |= {"save_strategy": "steps", "save_steps": job.params.guards.every}
        trainer = RewardTrainer(
            model=str(job.base),
            args=RewardConfig(**args, max_length=None),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(job.base),
            callbacks=[_Seal(state)],
            peft_config=job.params.lora and policy.adapter(job.params.lora, "SEQ_CLS"),
        )
        trainer.remove_callback(PrinterCallback)
        with trainer.accelerator.main_process_first():
            newest = checkpoints.newest(state)
        with loop.out_of_memory_said(trainer, job.params):
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        if trainer.accelerator.is_main_process:
            _write(trainer, job.base, out)
        trainer.accelerator.wait_for_everyone()
    return out, asked - len(pairs)


def score(folder: Path, job: Job) -> Reward:
    """A reward that is the model's score of the whole conversation.

    Raises:
        ModelError: The folder holds no sequence-classification model of one label.
    """
    tokenizer: Any = load_tokenizer(folder)
    tokenizer.padding_side = "right"
    model: Any = load_model(folder, job.params.dtype, "SEQ_CLS")
    if model.config.num_labels != 1:
        raise ModelError(
            f"reward model {folder} has {model.config.num_labels} labels",
            "Name one that has a single score (train.method.model)",
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.to(job.device).eval()

    @torch.no_grad()
    def reward_model(*, prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        chats = [prompt + said for prompt, said in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        for start in range(0, len(chats), job.params.micro_batch):
            batch = tokenizer.apply_chat_template(
                chats[start : start + job.params.micro_batch],
                padding=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)  # (B, L)
            scores += model(**batch).logits.squeeze(-1).float().tolist()
        return scores

    return reward_model


def _pairs(job: Job, label: Labeller) -> tuple[list[labels.Pair], int]:
    """The pairs, and of how many prompts."""
    PartialState(cpu=job.device == "cpu")
    generator = TransformersGenerator.load(
        job.base,
        device=job.device,
        dtype=job.params.dtype,
        batch_tokens=job.params.rollout_tokens,
    )
    rows, _ = budget.conversations(job.data.train, generator.tokenizer, job.params)
    draws = labels.draw(job, budget.walk(rows, job.params), generator)
    return labels.pairs(draws, label), len(draws)


class _Seal(TrainerCallback):  # type: ignore[misc]
    """Says how the reward model is doing, and seals its checkpoints."""

    def __init__(self, state: Path) -> None:
        self.folder = state

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "margin" in logs:
            log.info(
                "reward model: step %d/%d loss %.4f, right on %.0f %% of pairs",
                state.global_step,
                state.max_steps,
                logs["loss"],
                100 * logs["accuracy"],
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.seal(self.folder / f"checkpoint-{state.global_step}")


def _write(trainer: RewardTrainer, base: Path, out: Path) -> None:
    """The trained reward model, all or nothing; its checkpoints are needed no more."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    with policy.whole(out) as partial:
        model_files.copy(base, partial, with_weights=False)
        merged.save_pretrained(partial)
    for checkpoint in out.parent.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)

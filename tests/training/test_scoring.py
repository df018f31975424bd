"""Our log-probabilities on a CPU are TRL's, and so are their gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from sirl.generation import Sampling
from sirl.models import load_model, load_tokenizer
from sirl.training.rollouts import Rollouts
from sirl.training.trainer import SirlTrainer

# Three prompts. Rows 0 and 2 answer the same one, which is padded; row 3's begins with the token
# that pads it.
IDS = torch.tensor(
    [
        [1, 1, 40, 41, 42, 50, 51, 52],
        [9, 8, 7, 6, 5, 60, 61, 1],
        [1, 1, 40, 41, 42, 53, 1, 1],
        [1, 1, 40, 41, 42, 54, 55, 56],
    ]
)
MASK = torch.tensor(
    [
        [0, 0, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 1],
    ]
)
LENGTH = 3
WEIGHTS = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, 1.0], [-1.0, 2.0, 2.0], [3.0, 1.0, -2.0]])


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path) -> Any:
    args = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        temperature=0.7,
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_checkpointing=False,
    )
    nobody: Any = None
    return SirlTrainer(
        model=load_model(tiny_model, "float32"),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "never read"}]),
        processing_class=load_tokenizer(tiny_model),
        reward_funcs=lambda **_: [],
        rollouts=Rollouts(nobody, Sampling(), seed=0, journal=nobody),  # never asked
        anchor_params=None,
        anchor_rows=[],
    )


def scored(kind: type[GRPOTrainer], trainer: Any, batch_size: int = 4) -> tuple[torch.Tensor, ...]:
    """Log-probabilities, entropies and the gradients of a weighted sum of the former."""
    trainer.model.zero_grad()
    logps, entropies, _ = kind._get_per_token_logps_and_entropies(
        trainer, trainer.model, IDS, MASK, LENGTH, batch_size=batch_size, compute_entropy=True
    )
    (logps * MASK[:, -LENGTH:] * WEIGHTS).sum().backward()
    return logps.detach(), entropies, *(p.grad for p in trainer.model.parameters())


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_scores_and_gradients_are_those_of_trl(
    trainer: Any, batch_size: int, checkpointing: bool
) -> None:
    trainer.args.gradient_checkpointing = checkpointing
    if checkpointing:
        trainer.model.gradient_checkpointing_enable()
    ours, theirs = scored(SirlTrainer, trainer, batch_size), scored(GRPOTrainer, trainer, 1)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_a_shared_prompt_is_read_once(trainer: Any) -> None:
    read: list[int] = []
    embedding = trainer.model.get_input_embeddings()
    embedding.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    scored(SirlTrainer, trainer)
    assert read == [3 * 5, 4 * LENGTH]  # three prompts, then four responses


def test_padding_scores_nothing(trainer: Any) -> None:
    logps, entropies, *_ = scored(SirlTrainer, trainer)
    padding = MASK[:, -LENGTH:] == 0
    assert (logps[padding] == 0).all() and (entropies[padding] == 0).all()
    assert (logps[~padding] < 0).all() and (entropies[~padding] > 0).all()

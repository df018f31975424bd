"""Our log-probabilities on a CPU are TRL's, and so are their gradients; what else the trainer adds
to TRL's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from sirl.config import AnchorParams
from sirl.errors import TrainingError
from sirl.generation import Sampling
from sirl.models import load_model, load_tokenizer
from sirl.training import anchor
from sirl.training.anchor import AnchorRow
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


def made(model: Path, folder: Path, rows: Sequence[AnchorRow] = ()) -> Any:
    args = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        temperature=0.7,
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_checkpointing=False,
    )
    nobody: Any = None
    return SirlTrainer(
        model=load_model(model, "float32"),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "never read"}]),
        processing_class=load_tokenizer(model),
        reward_funcs=lambda **_: [],
        rollouts=Rollouts(nobody, Sampling(), seed=0, journal=nobody),  # never asked
        anchor_params=None,
        anchor_rows=rows,
    )


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path) -> Any:
    return made(tiny_model, tmp_path)


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


def test_entropy_is_made_where_it_is_asked_for_or_awaited(
    trainer: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[torch.Tensor] = []
    monkeypatch.setattr(trainer.rollouts, "measure", measured.append)
    inputs = (IDS, MASK, LENGTH)
    assert trainer._get_per_token_logps_and_entropies(trainer.model, *inputs)[1] is None
    assert measured == []
    trainer.rollouts.awaits_entropy = True
    trainer._get_per_token_logps_and_entropies(trainer.model, *inputs)
    with pytest.raises(AssertionError):  # of the reference they would be another reward
        trainer._get_per_token_logps_and_entropies(load_model(tiny_model, "float32"), *inputs)
    trainer.rollouts.awaits_entropy = False
    torch.testing.assert_close(measured, [scored(SirlTrainer, trainer)[1]])


def test_a_loss_of_experts_is_trl_s_affair(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def theirs(_: Any, *words: Any, **more: Any) -> tuple[str, None, None]:
        asked.append((words[-2:], more))
        return "theirs", None, None

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", theirs)
    found = trainer._get_per_token_logps_and_entropies(
        trainer.model, IDS, MASK, LENGTH, batch_size=3, compute_aux_loss=True
    )
    assert found == ("theirs", None, None)
    assert asked == [((3, False), {"compute_aux_loss": True})]


def test_a_loss_that_is_not_finite_ends_training_and_names_prompts(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = torch.tensor(1.0)
    monkeypatch.setattr(GRPOTrainer, "compute_loss", lambda *_: loss)
    trainer.rollouts.prompt_ids = ["b/1", "a/2", "b/1"]
    assert trainer.compute_loss(trainer.model, {}) == 1
    loss = torch.tensor(torch.nan)
    with pytest.raises(TrainingError, match=r"step 1: the loss is not finite, on prompts a/2, b/1"):
        trainer.compute_loss(trainer.model, {})


@pytest.mark.parametrize(
    ("packable", "layout"), [(True, anchor.pack), (False, anchor.pad)], ids=["packed", "padded"]
)
def test_anchor_rows_are_padded_where_they_cannot_be_packed(
    packable: bool,
    layout: Any,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anchor, "packable", lambda *_: packable)
    assert made(tiny_model, tmp_path, [AnchorRow((5,), (6,))]).lay_out == layout
    assert made(tiny_model, tmp_path).lay_out == anchor.pack  # nothing to lay out


@pytest.mark.parametrize(("parts", "passes"), [(1, 3), (2, 2)])
def test_the_anchor_s_micro_batches_add_up_to_the_mean_over_its_rows(
    parts: int, passes: int, trainer: Any, tiny_model: Path
) -> None:
    rows = [AnchorRow((5, 6 + n), tuple(range(7, 8 + n % 4))) for n in range(13)]
    trainer.anchor_rows, trainer.ref_model = rows, load_model(tiny_model, "float32")
    with torch.no_grad():
        trainer.ref_model.get_input_embeddings().weight.mul_(1.5)
    trainer.current_gradient_accumulation_steps = parts
    trainer.state.global_step = 1
    params = AnchorParams(weight=3.0, prompts_per_step=20, temperature=0.5)
    step = [rows[(20 + n) % 13] for n in range(20)]
    wanted = 0.0
    for row in step:
        ids = torch.tensor([row.prompt_ids + row.answer_ids])
        with torch.no_grad():
            reference, policy = (
                (model(ids).logits[0, 1:-1] / sharp).log_softmax(-1)
                for model, sharp in ((trainer.ref_model, 0.5), (trainer.model, 1.0))
            )  # (T, V) each
        wanted += float((reference.exp() * (reference - policy)).sum(-1).mean()) / 20
    read: list[int] = []
    trainer.model.register_forward_hook(lambda *_: read.append(1))
    losses = []
    for trainer._step in range(parts, 2 * parts):
        losses.append(float(trainer._anchor_loss(trainer.model, params)))
    assert sum(losses) == pytest.approx(3 * wanted, rel=1e-4)
    noted = trainer._metrics["train"]["anchor_kl"]
    assert sum(noted) / parts == pytest.approx(wanted, rel=1e-4)
    assert len(read) == parts * passes

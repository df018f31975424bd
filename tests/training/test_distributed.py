"""Two processes with gloo do what one does with the same global batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sirl.config import AnchorParams, GuardParams, TrainParams
from sirl.errors import TrainingError
from sirl.records import Prompt
from sirl.training.launched import launch
from sirl.training.methods import Dpo
from sirl.training.run import Data, Job

TWO = Path(__file__).parents[2] / "infra" / "accelerate" / "cpu2.yaml"
PARAMS = TrainParams(
    steps=5,
    prompts_per_step=4,
    group=2,
    micro_batch=2,
    learning_rate=3e-4,
    max_prompt_tokens=128,
    max_new_tokens=6,
    dtype="float32",
    # Nine rows for some micro-batches and eight for others: two passes, one of which may be empty.
    anchor=AnchorParams(weight=3.0, prompts_per_step=34, max_new_tokens=4),
    guards=GuardParams(every=5, min_mean_tokens=0, max_kl=1e9, max_identical=1),
)
BENIGN = [Prompt(f"b/{i}", f"Tell me about tree {i}.", "b", "benign") for i in range(6)]
TRAIN = [Prompt(f"t/{i}", f"How do I pick lock number {i}?", "t", "harmful") for i in range(24)]
DATA = Data(TRAIN, BENIGN, BENIGN)


def job(model: Path, folder: Path, **changes: Any) -> Job:
    places = {"base": model, "out": folder / "trained", "state": folder / "state"}
    return Job(**places, data=DATA, params=PARAMS, seed=5, device="cpu", **changes)


def test_two_processes_equal_one(
    hesitant: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replay: Callable[..., None],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: list[float] = []
    alone = PARAMS.method.train(job(hesitant, tmp_path / "one"))
    replay(tmp_path / "both" / "state", processes=2)
    follow = {"on_step": lambda row: seen.append(row["step"])}
    together = launch(job(hesitant, tmp_path / "both", **follow), TWO)
    assert seen == [1, 2, 3, 4, 5]
    for one, both in zip(alone.steps, together.steps, strict=True):
        # Not TRL's `kl`: a mean of means over micro-batches, whose responses differ in length.
        for name in ("loss", "reward", "anchor_kl", "entropy", "refusal/train"):
            assert both[name] == pytest.approx(one[name], abs=1e-4), name
        assert both["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    assert [s.text for s in together.samples] == [s.text for s in alone.samples]
    one, both = (
        load_file(tmp_path / name / "trained" / "model.safetensors") for name in ("one", "both")
    )
    assert max(float((one[name] - both[name]).abs().max()) for name in one) < 1e-3


def test_two_processes_share_out_the_labelling_and_the_pairs(
    hesitant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changes = {"method": Dpo(), "steps": 2, "group": 4, "max_new_tokens": 20}
    params = PARAMS.model_copy(update=changes)
    alone = params.method.train(replace(job(hesitant, tmp_path / "one"), params=params))
    together = launch(replace(job(hesitant, tmp_path / "both"), params=params), TWO)
    assert together.unlabelled == alone.unlabelled
    for one, both in zip(alone.steps, together.steps, strict=True):
        assert both["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert both["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    # So many processes ran.
    lines = [path.read_text().count("\n") for path in (tmp_path / "both").glob("*/draws-*.jsonl")]
    assert lines == [16, 16]


def test_what_a_process_cannot_do_is_one_line_here(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    short = PARAMS.model_copy(update={"max_prompt_tokens": 1})
    with pytest.raises(TrainingError, match="only 0 training prompts are within 1 tokens"):
        launch(replace(job(tiny_model, tmp_path), params=short), TWO)
    with pytest.raises(TrainingError, match=r"train.launch: .* does not exist"):
        launch(job(tiny_model, tmp_path), tmp_path / "none.yaml")

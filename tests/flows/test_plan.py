"""Sizes and memory, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import plan, shapes
from flows.shapes import Shape
from flows.workplace import opened
from sirl import config
from sirl.config import LoraParams, TrainParams
from sirl.errors import ModelError
from sirl.models import HubModel, LocalModel, S3Model

SMALL = Shape(parameters=1000, layers=2, hidden=8, kv_heads=1, head_size=4, vocabulary=10)
TRAIN = TrainParams(micro_batch=4, max_prompt_tokens=5, max_new_tokens=7, dtype="bfloat16")


def test_full_training_holds_twenty_four_bytes_a_weight_and_a_transient() -> None:
    parts = plan.training_memory(SMALL, TRAIN)
    transient = parts.pop("rollout or training pass")
    assert sum(parts.values()) == (4 + 4 + 8 + 4 + 2 + 2) * 1000
    assert transient == plan.pass_bytes(SMALL, TRAIN)


def test_no_reference_without_beta_and_few_gradients_with_an_adapter() -> None:
    bare = plan.training_memory(SMALL, TRAIN.model_copy(update={"beta": 0.0}))
    assert bare["reference copy, float32"] == 0
    lora = plan.training_memory(SMALL, TRAIN.model_copy(update={"lora": LoraParams(rank=1)}))
    assert lora["reference copy, float32"] == 0
    assert lora["gradients"] == 4 * (2 * 20 * 8)
    assert lora["weights, float32"] == 4000


def test_transients() -> None:
    tokens = 4 * (5 + 7)
    assert plan.rollout_bytes(SMALL, TRAIN) == 2 * 2 * 1 * 4 * 2 * 4 * tokens
    logits = 8 * 10 * 4 * 7
    assert plan.pass_bytes(SMALL, TRAIN) == 34 * 2 * 8 * tokens + logits
    saved = TRAIN.model_copy(update={"gradient_checkpointing": True})
    assert plan.pass_bytes(SMALL, saved) == (2 * 2 + 34) * 8 * tokens + logits


def test_the_shape_of_a_folder_is_that_of_its_model(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    shape = shapes.of(LocalModel(path=tiny_model))
    assert shape is not None
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.head_size) == (2, 64, 2, 16)


def test_the_default_model_is_read_out_of_its_package(project: Path) -> None:
    shape = shapes.of(config.load(project / "params.yaml").base.model)
    assert shape == Shape(134_515_008, 30, 576, 3, 64, 49_152)


def test_a_model_out_of_reach_has_no_shape_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    assert shapes.of(HubModel(id="someone/unknown", revision="0" * 40)) is None
    assert shapes.of(S3Model(uri="s3://bucket/model", digest="0")) is None
    assert shapes.of(LocalModel(path=tmp_path / "gone")) is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read as a model"):
        shapes.of(LocalModel(path=tmp_path))


def test_states_of_stages(project: Path, environment: pytest.MonkeyPatch) -> None:
    from flows import pipeline

    with opened(project, None, []) as place:
        assert set(plan.stages(place, "train").values()) == {"run"}
        pipeline.repro(place, None, lambda _: None)
        (project / "content").write_text("changed")
        changed = "run if its inputs change"
        assert plan.stages(place, None) == {
            "base": "cached",
            "train": "run",
            "judge@base": changed,
            "judge@trained": changed,
            "gate": changed,
        }


def test_sizes_read_well() -> None:
    assert plan.gib(3 * 2**29) == "1.5 GiB"
    assert plan.gib(3 * 2**20) == "3 MiB"

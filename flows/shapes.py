"""How large a model is, read without loading it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sirl import model_files
from sirl.errors import ModelError
from sirl.models import HubModel, LocalModel, ModelSpec, PackagedModel


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a causal transformer."""

    parameters: int
    layers: int
    hidden: int
    kv_heads: int
    head_size: int
    vocabulary: int


KNOWN = {
    "meta-llama/Llama-3.1-8B-Instruct": Shape(8_030_261_248, 32, 4096, 8, 128, 128_256),
    "meta-llama/Llama-3.2-3B-Instruct": Shape(3_212_749_824, 28, 3072, 8, 128, 128_256),
    "Qwen/Qwen2.5-3B-Instruct": Shape(3_085_938_688, 36, 2048, 2, 128, 151_936),
    "Qwen/Qwen2.5-7B-Instruct": Shape(7_615_616_512, 28, 3584, 4, 128, 152_064),
}
"""Hub models of presets/, so that a plan needs no network (from their config.json)."""


def of(model: ModelSpec) -> Shape | None:
    """The shape of a model, or None where its files are out of reach.

    Raises:
        ModelError: The files are there and cannot be read.
    """
    if isinstance(model, HubModel):
        return KNOWN.get(model.id)
    if isinstance(model, LocalModel):
        return _readable(model.path, _folder)
    if isinstance(model, PackagedModel):
        try:
            found = importlib.metadata.distribution(model.package).locate_file(str(model.file))
        except importlib.metadata.PackageNotFoundError:
            return None
        return _readable(Path(str(found)), _gguf)
    return None


def _readable(path: Path, read: Callable[[Path], Shape]) -> Shape | None:
    if not path.exists():
        return None
    try:
        return read(path)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(f"{path} cannot be read as a model: {error!r}") from error


def _folder(path: Path) -> Shape:
    """From config.json and the headers of the safetensors."""
    config = json.loads((path / "config.json").read_bytes())
    heads = config["num_attention_heads"]
    return Shape(
        parameters=sum(_elements(file) for file in model_files.weights(path)),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
    )


def _elements(file: Path) -> int:
    """Numbers in a safetensors file: its header is a length and a JSON of shapes."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return sum(math.prod(tensor["shape"]) for tensor in header.values())


def _gguf(path: Path) -> Shape:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    kind = reader.fields["general.architecture"].contents()

    def value(key: str) -> Any:
        return reader.fields[f"{kind}.{key}"].contents()

    hidden, heads = value("embedding_length"), value("attention.head_count")
    return Shape(
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        layers=value("block_count"),
        hidden=hidden,
        kv_heads=value("attention.head_count_kv"),
        head_size=hidden // heads,
        vocabulary=len(reader.fields["tokenizer.ggml.tokens"].data),
    )

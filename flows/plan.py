"""What a run would do and need: stages, sizes, memory. The estimates are simple on purpose.

Training holds, in bytes for N weights of which T are trained: the policy in float32 (4 N), its
gradients (4 T) and AdamW's two moments (8 T); a float32 reference where `train.beta` is not 0 (4 N;
none with a low-rank adapter, which is switched off instead); the sampling copy in the compute type
and, in bf16, the weights that autocast keeps (2 N each); and the larger of two transients, for a
micro-batch of b responses over s = prompt + new tokens:

- sampling: the KV cache, 2 (keys, values) x layers x KV heads x head size x 4 b x s (four
  micro-batches are sampled together);
- a training pass: activations, 34 bytes x layers x hidden x b x s without attention scores, which
  fused attention does not keep (Korthikanti et al. 2022, eq. 2), 2 bytes with gradient
  checkpointing plus one layer in full; logits and their gradient, 8 bytes x vocabulary x b x new.

Several processes or cards, fragmentation, libraries and the CUDA context (about 1 GB each) are left
out: of the default run it says 3.7 GiB, and stage train peaks at 5.8 GiB.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows import graph
from flows.shapes import Shape
from flows.workplace import Workplace
from sirl.config import Params, TrainParams

BYTES = {"float32": 4, "bfloat16": 2}

State = Literal["cached", "run", "run if its inputs change"]


def stages(place: Workplace, target: str | None) -> dict[str, State]:
    """What would happen to each stage, in order."""
    order = graph.read(place, target)
    stale = graph.stale(place)
    below = graph.below(order, stale)
    states: dict[str, State] = dict.fromkeys(order, "cached")
    states |= dict.fromkeys(below, "run if its inputs change")
    return states | dict.fromkeys(stale & set(order), "run")


def training_memory(shape: Shape, train: TrainParams) -> dict[str, int]:
    """Bytes of each part of training at its peak, by name; see the module's formulas."""
    trained = shape.parameters if train.lora is None else adapter_parameters(shape, train)
    reference = shape.parameters if train.beta and train.lora is None else 0
    return {
        "weights, float32": 4 * shape.parameters,
        "gradients": 4 * trained,
        "AdamW moments": 8 * trained,
        "reference copy, float32": 4 * reference,
        f"sampling copy, {train.dtype}": BYTES[train.dtype] * shape.parameters,
        "autocast": 2 * shape.parameters if train.dtype == "bfloat16" else 0,
        "rollout or training pass": max(rollout_bytes(shape, train), pass_bytes(shape, train)),
    }


def adapter_parameters(shape: Shape, train: TrainParams) -> int:
    """Weights of a low-rank adapter on the linear layers: about 20 hidden x rank a block."""
    rank = train.lora.rank if train.lora else 0
    return shape.layers * 20 * shape.hidden * rank


def rollout_bytes(shape: Shape, train: TrainParams) -> int:
    """The KV cache of a full batch of rollouts."""
    token = 2 * shape.layers * shape.kv_heads * shape.head_size * BYTES[train.dtype]
    return token * train.rollout_tokens


def pass_bytes(shape: Shape, train: TrainParams) -> int:
    """Activations and logits of a training pass over a full micro-batch."""
    tokens = train.micro_batch * (train.max_prompt_tokens + train.max_new_tokens)
    kept = 2 * shape.layers + 34 if train.gradient_checkpointing else 34 * shape.layers
    logits = 8 * shape.vocabulary * train.micro_batch * train.max_new_tokens
    return kept * shape.hidden * tokens + logits


@dataclass(frozen=True)
class Device:
    """Where a run would compute, and the memory there. `missing` says what it asks for in vain."""

    name: str
    memory: int
    missing: str = ""


def device(params: Params) -> Device:
    """The device that these settings get on this machine."""
    asked = params.runtime.device
    import torch

    if asked != "cpu" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Device(str(card.name), int(card.total_memory))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    missing = "a GPU (runtime.device: cuda)" if asked == "cuda" else ""
    return Device(f"CPU, {len(os.sched_getaffinity(0))} cores", memory, missing)


def disk(shape: Shape) -> int:
    """Bytes that a run leaves: base and trained model in float32, and a training checkpoint (model,
    AdamW moments) while it lasts."""
    return (4 + 4 + 12) * shape.parameters


def free_disk(place: Path) -> int:
    """Bytes free where the artifacts lie."""
    return shutil.disk_usage(place).free


def prompts(params: Params) -> Mapping[str, int]:
    """At most how many prompts each split takes."""
    splits = ("behaviours", "benign", "probe", "anchor", "train")
    return {split: getattr(params.prepare, split).limit for split in splits}


def gib(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

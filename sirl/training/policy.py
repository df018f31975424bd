"""The model that is trained: how it is loaded, and how its weights become the result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sirl import model_files
from sirl.models import GENERATION_CONFIG, Task, load_model
from sirl.training import checkpoints

if TYPE_CHECKING:
    from peft import LoraConfig

    from sirl.config import LoraParams, TrainParams


def load(base: Path, params: TrainParams) -> Any:
    """The model to train, in float32; with a fresh low-rank adapter when `train.lora` is set."""
    model = load_model(base, "float32")
    if params.lora is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, adapter(params.lora, "CAUSAL_LM"))


def adapter(params: LoraParams, task: Task) -> LoraConfig:
    """A low-rank adapter on every linear layer but the head."""
    from peft import LoraConfig

    return LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules="all-linear",
        task_type=task,
    )


def write(checkpoint: Path | None, base: Path, out: Path, params: TrainParams) -> None:
    """Puts the weights of a checkpoint, or the base model's where there is none, at `out`."""
    with whole(out) as partial:
        if checkpoint is None:
            model_files.copy(base, partial)
        elif params.lora is None:
            checkpoints.export(checkpoint, base, partial)
        else:
            from peft import PeftModel

            merged = PeftModel.from_pretrained(load_model(base, "float32"), str(checkpoint))
            merged.merge_and_unload().save_pretrained(partial)
            (partial / GENERATION_CONFIG).unlink(missing_ok=True)  # it is ours, not the publisher's
            model_files.copy(base, partial, with_weights=False)


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A place to write the folder `out`, which then appears all or nothing."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)

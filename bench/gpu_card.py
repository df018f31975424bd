"""The card that `bench.gpu` measures, the model on it, and how much is asked of them.

A row says what was run and, over a few repeats after one run that does not count: seconds (median,
from, to), the peak of memory allocated on the card, and what was allocated before.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

Rows = list[dict[str, Any]]

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 128_000,
    "eos_token_id": [128_001, 128_008, 128_009],
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
"""config.json of Llama-3.1-8B-Instruct."""

TINY = LLAMA_8B | {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
}


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        name: As the result says it.
        model: Of `LlamaConfig`.
        repeats: Timed runs of a case.
        lengths: Tokens of a row in `passes`; `tokens` in all.
        scored: Prompts of a micro-batch in `shared`, and tokens of (prompt, response).
        decoded: Rows in `decode`; `prompt` tokens before and `new` made.
        skewed: Tokens of the responses in `skewed`.
        step: Section `train` in `step`, and characters of its prompts.
    """

    name: str
    model: dict[str, Any]
    repeats: int
    lengths: tuple[int, ...]
    tokens: int
    scored: tuple[tuple[int, int, int], ...]
    decoded: tuple[int, ...]
    prompt: int
    new: int
    skewed: tuple[int, ...]
    step: dict[str, Any]
    characters: int


FULL = Scale(
    name="Llama-3.1-8B, random weights",
    model=LLAMA_8B,
    repeats=3,
    lengths=(512, 1024, 2048, 4096),
    tokens=4096,
    scored=((2, 256, 128), (2, 256, 512), (1, 1024, 256), (1, 1024, 1024)),
    decoded=(20, 64, 256),
    prompt=256,
    new=33,
    skewed=(1024, *(64 + 8 * i for i in range(15))),
    step={"prompts_per_step": 8, "micro_batch": 8, "max_new_tokens": 96},
    characters=200,
)
TOY = Scale(
    name="toy",
    model=TINY,
    repeats=1,
    lengths=(16, 32),
    tokens=32,
    scored=((2, 8, 4), (1, 8, 1)),
    decoded=(2, 3),
    prompt=8,
    new=4,
    skewed=(12, 3, 2, 4, 1),
    step={"prompts_per_step": 2, "micro_batch": 4, "max_new_tokens": 4},
    characters=20,
)


class Bench:
    """What sections share: the card, the model on it, the clock.

    Attributes:
        end: No case begins after this reading of the monotonic clock.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.end = 0.0

    def model(self) -> Any:
        """The model in bf16, made where it computes: in float32 it would take twice the memory."""
        from transformers import AutoModelForCausalLM, LlamaConfig

        torch.manual_seed(0)
        config = LlamaConfig(**self.scale.model, pad_token_id=self.scale.model["eos_token_id"][0])
        with torch.device(self.device):
            made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        made.generation_config.eos_token_id = config.eos_token_id
        return made.eval()

    def lora(self) -> Any:
        """The model with a fresh adapter, the fused head beneath it as TRL's trainer puts it."""
        from peft import get_peft_model
        from trl.trainer.utils import add_fused_lm_head

        from sirl.config import LoraParams
        from sirl.training import policy

        base = self.model()
        add_fused_lm_head(base, outputs=("log_probs", "entropy"))
        model = get_peft_model(base, policy.adapter(LoraParams(), "CAUSAL_LM"))
        model.enable_input_require_grads()
        return model.train()

    def ids(self, rows: int, length: int) -> torch.Tensor:
        """(rows, length) random tokens, none of which ends a response."""
        first = max(self.scale.model["eos_token_id"]) + 1
        vocabulary = self.scale.model["vocab_size"]
        low, high = (first, vocabulary) if first < vocabulary // 2 else (0, 128_000)
        return torch.randint(low, high, (rows, length), device=self.device)

    def autocast(self) -> Any:
        """As accelerate's under bf16."""
        return torch.autocast(self.device, torch.bfloat16)

    def release(self) -> None:
        """Gives cached memory back."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def now(self) -> float:
        """Seconds, all that was asked of the card being done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def mark(self) -> Any:
        """A moment, in the order of what the card was asked."""
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, began: Any, ended: Any) -> float:
        """Seconds from one moment to another."""
        if self.device != "cuda":
            return float(ended - began)
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1000

    def seconds(self, run: Callable[[], Any]) -> float:
        """Of one run."""
        began = self.mark()
        run()
        return self.between(began, self.mark())

    @contextmanager
    def memory(self, row: dict[str, Any]) -> Iterator[None]:
        """Writes what was allocated before, and the peak meanwhile."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            row["before_gib"] = round(torch.cuda.memory_allocated() / 2**30, 3)
        yield
        if self.device == "cuda":
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
            row["reserved_gib"] = round(torch.cuda.memory_reserved() / 2**30, 3)

    def case(
        self, rows: Rows, run: Callable[[], Any], repeats: int | None = None, **what: Any
    ) -> dict[str, Any]:
        """A row of what `run` takes; that memory ran out, or time, is a row as well."""
        row: dict[str, Any] = dict(what)
        rows.append(row)
        if time.monotonic() > self.end:
            row["error"] = "not begun: no time is left"
            return row
        try:
            with self.memory(row):
                run()
            times = [self.seconds(run) for _ in range(repeats or self.scale.repeats)]
            row |= {"seconds": statistics.median(times), "from": min(times), "to": max(times)}
        except torch.OutOfMemoryError as error:
            row["error"] = f"out of memory: {str(error)[:200]}"
        gc.collect()
        self.release()
        return row

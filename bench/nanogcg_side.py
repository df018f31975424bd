"""nanoGCG's side of bench.gcg: runs in an environment of its own, where nothing of ours is.

Reads the task as JSON from standard input, writes what was measured as the last line of output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import nanogcg
import nanogcg.gcg
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Runs every pair of the task."""
    task: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    model = AutoModelForCausalLM.from_pretrained(
        task["model"], torch_dtype=getattr(torch, task["dtype"]), trust_remote_code=False
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(task["model"], trust_remote_code=False)
    ends: list[tuple[float, float]] = []

    def clock(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            ends.append((time.perf_counter(), time.process_time()))
            yield step
        ends.append((time.perf_counter(), time.process_time()))

    nanogcg.gcg.tqdm = clock
    rows = []
    for request in task["requests"]:
        config = nanogcg.GCGConfig(
            num_steps=task["steps"],
            optim_str_init=task["suffix"],
            search_width=task["width"],
            topk=task["top_k"],
            seed=task["seed"],
            verbosity="ERROR",
        )
        ends.clear()
        result = nanogcg.run(model, tokenizer, request, task["start"], config)
        wall, cpu = (
            [later - earlier for earlier, later in pairwise(times)]
            for times in zip(*ends, strict=True)
        )
        found = {"suffix": result.best_string, "loss": result.best_loss}
        rows.append(found | {"seconds": wall, "cpu_seconds": cpu})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

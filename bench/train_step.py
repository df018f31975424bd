"""What does the entropy reward cost a training step? Our way against what one would write first.

    python -m bench.train_step      on the base model and prompts of the last `make run`

The sides take the same prompts, and every response has the same length: the end token is forbidden.

    ours      SirlTrainer, entropy recorded while sampling, no anchor
    bare      the same without recording; a constant reward
    forward   GRPOTrainer, the same sampler without recording; the reward makes another forward pass
              over full logits
    floor     GRPOTrainer, the same sampler without recording; a constant reward
    stock     GRPOTrainer with its own generation and TRL's defaults; the reward of `forward`
    default   what params.yaml trains, the anchor included

Each side runs in processes of its own, in turns; seconds are medians over steps, the first step of
a process left out; memory is the peak of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from sirl import config, records
from sirl.config import TrainParams
from sirl.layout import Layout
from sirl.records import Message, Prompt
from tasks.stage import bound_threads, peak_bytes

RESULTS = Path(__file__).parent / "results" / "train_step.json"
SIDES = ("ours", "bare", "forward", "floor", "stock", "default")
ROUNDS, STEPS = 3, 3


def job(folder: Path, side: str, steps: int) -> Any:
    """What every side trains: section `train` of params.yaml, the anchor for `default` alone."""
    from sirl.training.run import Data, Job

    layout = Layout()
    splits = ("train", "anchor", "probe")
    data = Data(*(list(records.read(layout.prompts(split), Prompt)) for split in splits))
    params = config.load(layout.params).train
    changes: dict[str, Any] = {"steps": steps + 1}
    if side != "default":
        changes["anchor"] = None
    params = params.model_copy(update=changes)
    return Job(layout.model("base"), folder / "out", folder, data, params, seed=17, device="cpu")


def trainer(job: Any, side: str) -> Any:
    """The trainer of one side, ready to train."""
    import torch
    from datasets import Dataset
    from trl import GRPOTrainer

    from sirl.generation import transformers as backend
    from sirl.models import load_tokenizer
    from sirl.training import anchor, budget, policy, rewards, sirl
    from sirl.training.journal import Journal
    from sirl.training.mirror import Mirror
    from sirl.training.rollouts import Rollouts
    from sirl.training.trainer import SirlTrainer

    params, tokenizer = job.params, load_tokenizer(job.base)
    train, _ = budget.conversations(job.data.train, tokenizer, params)
    common = {"train_dataset": Dataset.from_list(train), "processing_class": tokenizer}
    if side == "stock":
        made = GRPOTrainer(str(job.base), args=stock(job), reward_funcs=constant, **common)
        made.reward_funcs = [another_forward(made)]
        return made
    model = policy.load(job.base, params)
    if side in ("bare", "forward", "floor"):
        backend.entropy = lambda p, _: torch.zeros(len(p))  # records nothing
    mirror = Mirror(model, tokenizer, params, job.device)
    mirror.generator.model.generation_config.min_new_tokens = params.max_new_tokens
    journal = Journal(job.state / "rollouts.jsonl")
    rollouts = Rollouts(mirror, budget.sampling(params), seed=job.seed, journal=journal)
    common |= {"model": model, "args": sirl._trl_config(job)}
    if side in ("ours", "bare", "default"):
        reward = constant if side == "bare" else rollouts.scored(rewards.negative_entropy())
        rows = params.anchor and anchor.answer(
            job.data.anchor, mirror.generator, params.anchor.max_new_tokens
        )
        return SirlTrainer(
            rollouts=rollouts,
            reward_funcs=reward,
            anchor_params=params.anchor,
            anchor_rows=rows or [],
            **common,
        )
    made = GRPOTrainer(rollout_func=rollouts, reward_funcs=constant, **common)
    if side == "forward":
        made.reward_funcs = [another_forward(made)]
    return made


def stock(job: Any) -> Any:
    """TRL's configuration with the method's own numbers and nothing else."""
    from trl import GRPOConfig

    params: TrainParams = job.params
    return GRPOConfig(
        output_dir=str(job.state),
        use_cpu=True,
        max_steps=params.steps,
        num_generations=params.group,
        gradient_accumulation_steps=params.prompts_per_step * params.group // 8,  # 8 is TRL's batch
        learning_rate=params.learning_rate,
        beta=params.beta,
        temperature=params.temperature,
        max_completion_length=params.max_new_tokens,
        generation_kwargs={"min_new_tokens": params.max_new_tokens},
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        seed=job.seed,
    )


def constant(*, completions: list[Any], **_: Any) -> list[float]:
    """The reward that costs nothing."""
    return [0.0] * len(completions)


def another_forward(owner: Any) -> Callable[..., list[float]]:
    """The reward that one would write first: the policy reads prompt and response again."""
    import torch

    @torch.no_grad()
    def reward(*, prompts: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokenizer = owner.processing_class
        heads = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        rows = [{"input_ids": h + c} for h, c in zip(heads, completion_ids, strict=True)]
        batch = tokenizer.pad(rows, return_tensors="pt", padding_side="left")
        with owner.accelerator.autocast():
            logits = owner.model(**batch).logits  # (B, L, V)
        length = len(completion_ids[0])
        log_p = logits[:, -length - 1 : -1].float().log_softmax(-1)  # (B, T, V)
        entropies = -(log_p.exp() * log_p).sum(-1)  # (B, T)
        return [-float(value) for value in entropies.mean(-1)]

    reward.__name__ = "another_forward"
    return reward


def measure(side: str, steps: int) -> dict[str, Any]:
    """Seconds of each step after the first, and peak memory, of this process."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        made = trainer(job(Path(folder), side, steps), side)
        made.add_callback(Clock())
        made.train()
    seconds = [later - earlier for earlier, later in pairwise(ends)]
    return {"seconds": seconds, "peak_bytes": peak_bytes()}


def agreement(dtype: str, prompts: int = 16) -> float:
    """Largest difference in nats between recorded and teacher-forced token entropies."""
    import torch

    from sirl.entropy import token_entropy
    from sirl.generation import Request, Sampling
    from sirl.generation.transformers import TransformersGenerator

    generator = TransformersGenerator.load(
        Layout().model("base"), device="cpu", dtype=dtype, batch_tokens=8192
    )
    train = list(records.read(Layout().prompts("train"), Prompt))[:prompts]
    requests = {p.id: Request(p.id, (Message("user", p.text),)) for p in train}
    worst = 0.0
    for done in generator.generate(requests.values(), Sampling(max_new_tokens=32, temperature=1.0)):
        head = generator.encode(requests[done.id])
        with torch.no_grad():
            logits = generator.model(torch.tensor([head + list(done.token_ids)])).logits[0]
        forced = token_entropy(logits[len(head) - 1 : -1])  # (T,)
        worst = max(worst, float((forced - torch.tensor(done.entropies)).abs().max()))
    return worst


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def run(rounds: int, steps: int) -> dict[str, Any]:
    """Every side in turns; medians and peaks."""
    raw: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "bench.train_step", "--side", side]
            done = subprocess.run(
                [*command, "--steps", str(steps)], capture_output=True, text=True, check=True
            )
            raw[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {turn + 1} {side}: {raw[side][-1]}", file=sys.stderr, flush=True)
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "sides": {
            side: {
                "seconds": statistics.median(s for row in rows for s in row["seconds"]),
                "fastest": min(s for row in rows for s in row["seconds"]),
                "slowest": max(s for row in rows for s in row["seconds"]),
                "peak_gib": max(row["peak_bytes"] for row in rows) / 2**30,
            }
            for side, rows in raw.items()
        },
        "agreement_nats": {dtype: agreement(dtype) for dtype in ("float32", "bfloat16")},
    }


def table(result: dict[str, Any]) -> str:
    """The figures and the ratios, each beside its bar."""
    sides = result["sides"]
    lines = [f"{'side':10}{'s a step':>10}{'from':>8}{'to':>8}{'peak GiB':>10}"]
    for name, row in sides.items():
        lines.append(
            f"{name:10}{row['seconds']:10.2f}{row['fastest']:8.2f}{row['slowest']:8.2f}"
            f"{row['peak_gib']:10.2f}"
        )
    second = {name: row["seconds"] for name, row in sides.items()}
    peak = {name: row["peak_gib"] for name, row in sides.items()}
    ratios = [
        ("time, ours / bare", second["ours"] / second["bare"], "<= 1.05"),
        ("time, ours / floor", second["ours"] / second["floor"], "<= 1.05"),
        ("time, forward / ours", second["forward"] / second["ours"], ">= 1.2"),
        ("time, stock / default", second["stock"] / second["default"], ">= 1.8"),
        ("peak, ours / bare", peak["ours"] / peak["bare"], "<= 1.05"),
        ("peak, ours / floor", peak["ours"] / peak["floor"], "<= 1.05"),
    ]
    lines += [f"{name:28}{value:8.3f}   bar {bar}" for name, value, bar in ratios]
    gap = result["agreement_nats"]
    lines.append(
        f"{'recorded, teacher-forced':28}{gap['float32']:8.1e}   bar <= 1e-3 nats, float32"
    )
    lines.append(f"{'':28}{gap['bfloat16']:8.1e}   bfloat16")
    return "\n".join(lines)


def main() -> None:
    """Runs the bench, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    bound_threads(0)
    if arguments.side:
        print(json.dumps(measure(arguments.side, arguments.steps)))
        return
    result = run(arguments.rounds, arguments.steps)
    records.write_json(RESULTS, result)
    print(table(result))


if __name__ == "__main__":
    main()

"""The sections of `bench.gpu`. Each adds rows to a list: one that is cut short leaves those."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from bench.gpu_card import Bench, Rows

GROUP = 4


def environment(bench: Bench, rows: Rows) -> None:
    """Versions, the card, what imports, whether a kernel compiles, and the card's own ceilings."""
    names = ("torch", "triton", "transformers", "accelerate", "trl", "peft", "datasets", "pydantic")
    rows.append({name: _version(name) for name in names} | {"python": platform.python_version()})
    modules = ("trl", "datasets", "sirl.training.sirl", "sirl.training.trainer", "flows.plan")
    rows.append({f"import {name}": _said(importlib.import_module, name) for name in modules})
    rows.append({name: shutil.which(name) for name in ("cc", "gcc", "nvcc", "ninja")})
    if bench.device != "cuda":
        return
    card = torch.cuda.get_device_properties(0)
    rows.append({"card": card.name, "bytes": card.total_memory, "cuda": torch.version.cuda})
    rows.append({"clocks, idle": _clocks()})
    rows.append({"torch.compile": _said(_compiles)})
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    row = bench.case(rows, lambda: [matrix @ matrix for _ in range(20)], what="20 products of 8192")
    row["tflops"] = 20 * 2 * 8192**3 / row["seconds"] / 1e12
    rows.append({"clocks, after": _clocks()})
    big = torch.empty(2**31, device="cuda", dtype=torch.bfloat16)
    row = bench.case(rows, lambda: big[: 2**30].copy_(big[2**30 :]), what="2 GiB copied")
    row["gb_per_second"] = 2 * 2**31 / row["seconds"] / 1e9


def entropy(bench: Bench, rows: Rows) -> None:
    """Whose entropies are how far from float64, of the same bf16 hidden states: near-flat
    distributions, and at a low temperature sharp ones."""
    from trl.trainer.utils import add_fused_lm_head, entropy_from_logits

    from sirl.entropy import token_entropy
    from sirl.generation import Sampling
    from sirl.generation.transformers import EntropySampler
    from sirl.training import scoring

    model, (prompt, length) = bench.model(), (32, 64 if bench.device == "cuda" else 8)
    ids = bench.ids(1, prompt).repeat(4, 1)
    ids = torch.cat([ids, bench.ids(4, length)], 1)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[:, prompt - 1 : -1].double()  # (4, T, h)
        exact = hidden @ model.lm_head.weight.double().T  # (4, T, V)
        logits = model(ids).logits[:, prompt - 1 : -1]  # (4, T, V)
    for temperature in (1.0, 0.1):
        log_p = (exact / temperature).log_softmax(-1)
        reference = -(log_p.exp() * log_p).sum(-1)  # (4, T)
        log_p = (logits.double() / temperature).log_softmax(-1)
        told = {"float64 of bf16 logits": -(log_p.exp() * log_p).sum(-1)}
        told["token_entropy"] = token_entropy(logits, temperature)
        told["TRL entropy_from_logits"] = entropy_from_logits(logits / temperature)
        sampling = Sampling(temperature=temperature, entropy_temperature=temperature)
        sampler = EntropySampler(torch.rand(4 * length, 1, device=bench.device), sampling)
        sampler(ids, logits.flatten(0, 1).float())
        told["sampler"] = sampler.entropies[0].view(4, length)
        add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy"))
        asked = (model, ids, mask, length, temperature)
        with torch.no_grad():
            for share in (False, True):
                told[f"scorer, shared {share}"] = scoring.score(
                    *asked, with_entropy=True, share_prompts=share
                )[1]
            told["fused head, TRL"] = _stock(bench, model, ids, mask, length)[1]
        model.__dict__.pop("forward")  # the head of this temperature
        for name, values in told.items():
            gap = values.double() - reference
            row = {"temperature": temperature, "of": name, "mean": float(reference.mean())}
            row |= {"largest_gap": float(gap.abs().max()), "mean_gap": float(gap.mean())}
            rows.append(row)
        rows.append({"temperature": temperature, "cumsum": _rounding(logits / temperature)})


def _rounding(logits: torch.Tensor) -> dict[str, float]:
    """What a summed mass of float32 makes of tokens that were cut to 0: the probability with which
    one of them is drawn, and how often the sum falls."""
    p = logits.flatten(0, 1).float().softmax(-1)
    p = torch.where(p > p.median(-1, keepdim=True).values, p, 0.0)
    steps = p.cumsum(-1).diff(dim=-1)
    cut = p[:, 1:] == 0
    drawn = (steps.clamp(min=0) * cut).sum(-1).mean()
    return {"drawn_though_cut": float(drawn), "falls_a_row": float((steps < 0).sum() / len(p))}


def decode(bench: Bench, rows: Rows) -> None:
    """Milliseconds of one more token of every row: generation as our sampler does it, recording,
    and greedy without it."""
    from transformers import LogitsProcessorList

    from sirl.generation import Sampling
    from sirl.generation.transformers import EntropySampler

    model, new = bench.model(), bench.scale.new

    def generate(count: int, records: bool, marks: list[Any]) -> None:
        marks.clear()
        ids = bench.ids(count, bench.scale.prompt)
        noise = torch.rand(count, new, dtype=torch.float64).to(bench.device)
        sampler = EntropySampler(noise, Sampling(temperature=1.0))

        def mark(_: Any, scores: Any) -> Any:
            marks.append(bench.mark())
            return scores

        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            logits_processor=LogitsProcessorList([sampler, mark] if records else [mark]),
        )

    for count in bench.scale.decoded:
        for records in (True, False):
            marks: list[Any] = []
            what = {"batch": count, "records": records, "new": new, "prompt": bench.scale.prompt}
            row = bench.case(
                rows, lambda c=count, r=records, m=marks: generate(c, r, m), repeats=1, **what
            )
            if "seconds" in row:
                between = [bench.between(*pair) for pair in pairwise(marks)]
                row["ms_a_token"] = 1000 * statistics.median(between)


def passes(bench: Bench, rows: Rows) -> None:
    """Forward, and forward and backward, of a bf16 base with an adapter; what was planned."""
    from flows import plan
    from sirl.config import LoraParams, TrainParams

    model = bench.lora()
    for checkpointing in (True, False):
        _checkpoint(model, checkpointing)
        for length in bench.scale.lengths:
            count, half = bench.scale.tokens // length, length // 2
            ids = bench.ids(count, length)
            mask = torch.ones_like(ids)
            params = TrainParams(
                micro_batch=count,
                max_prompt_tokens=half,
                max_new_tokens=half,
                gradient_checkpointing=checkpointing,
                lora=LoraParams(),
            )
            planned = round(plan.pass_bytes(_shape(model), params) / 2**30, 3)
            what = {"batch": count, "length": length, "checkpointing": checkpointing}

            def forward(ids: Any = ids, mask: Any = mask, half: int = half) -> None:
                with torch.no_grad():
                    _stock(bench, model, ids, mask, half)

            def both(ids: Any = ids, mask: Any = mask, half: int = half) -> None:
                _backward(model, _stock(bench, model, ids, mask, half)[0])

            for name, run in {"forward": forward, "forward and backward": both}.items():
                row = bench.case(rows, run, what=name, **what)
                if "seconds" in row:
                    row["tokens_a_second"] = bench.scale.tokens / row["seconds"]
            row["planned_pass_gib"] = planned


def shared(bench: Bench, rows: Rows) -> None:
    """A group's prompt read once against once a response, no checkpointing; and by how much the
    log-probabilities differ."""
    from sirl.training import scoring

    model = bench.lora()
    _checkpoint(model, False)
    for prompts, prompt, length in bench.scale.scored:
        head = bench.ids(prompts, prompt).repeat_interleave(GROUP, 0)
        ids = torch.cat([head, bench.ids(len(head), length)], 1)
        mask = torch.ones_like(ids)

        def ours(ids: Any = ids, mask: Any = mask, length: int = length) -> torch.Tensor:
            with bench.autocast():
                asked = (model, ids, mask, length, 1.0)
                return scoring.score(*asked, with_entropy=True, share_prompts=True)[0]

        def theirs(ids: Any = ids, mask: Any = mask, length: int = length) -> torch.Tensor:
            return _stock(bench, model, ids, mask, length)[0]

        what = {"batch": len(ids), "prompt": prompt, "response": length}
        for name, score in {"shared": ours, "TRL": theirs}.items():
            bench.case(rows, lambda s=score: _backward(model, s()), side=name, **what)
            bench.case(rows, torch.no_grad()(score), side=f"{name}, no gradient", **what)
        with torch.no_grad():
            gap = (ours() - theirs()).abs()
        rows.append(what | {"largest_gap": float(gap.max()), "mean_gap": float(gap.mean())})


def skewed(bench: Bench, rows: Rows) -> None:
    """One long response among short ones, under checkpointing: micro-batches padded to the longest
    of all, against sorted by length and each padded to its own longest."""
    model = bench.lora()
    _checkpoint(model, True)
    lengths, prompt = bench.scale.skewed, bench.scale.prompt

    def train(order: Sequence[int], trim: bool) -> None:
        for start in range(0, len(order), GROUP):
            part = order[start : start + GROUP]
            widest = max(part) if trim else max(order)
            ids = bench.ids(len(part), prompt + widest)
            ends = torch.tensor(part, device=bench.device).unsqueeze(1) + prompt
            mask = (torch.arange(prompt + widest, device=bench.device) < ends).long()
            _backward(model, _stock(bench, model, ids, mask, widest)[0])

    what = {"responses": list(lengths), "prompt": prompt, "micro_batch": GROUP}
    bench.case(rows, lambda: train(lengths, False), side="padded", **what)
    bench.case(rows, lambda: train(sorted(lengths), True), side="sorted", **what)


def step(bench: Bench, rows: Rows) -> None:
    """Whole steps of GRPO: our trainer, entropy recorded while sampling, against TRL's with its own
    generation and a reward that reads everything again; bf16 bases with an adapter."""
    from bench.gpu_step import SIDES, train

    for side in SIDES:
        if time.monotonic() > bench.end:
            rows.append({"side": side, "error": "not begun: no time is left"})
            continue
        row: dict[str, Any] = {"side": side}
        rows.append(row)
        with tempfile.TemporaryDirectory() as folder:
            try:
                with bench.memory(row):
                    train(bench, side, Path(folder), row)
            except torch.OutOfMemoryError as error:
                row["error"] = f"out of memory: {str(error)[:200]}"
        gc.collect()
        bench.release()


def _stock(
    bench: Bench, model: Any, ids: torch.Tensor, mask: torch.Tensor, length: int
) -> tuple[Any, ...]:
    """Log-probabilities and entropies as TRL's trainer makes them."""
    from trl import GRPOTrainer

    trainer = SimpleNamespace(accelerator=SimpleNamespace(autocast=bench.autocast))
    score = GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__  # without its profiler
    told: tuple[Any, ...] = score(trainer, model, ids, mask, length, compute_entropy=True)
    return told


def _backward(model: Any, log_probs: torch.Tensor) -> None:
    log_probs.mean().backward()
    model.zero_grad(set_to_none=True)


def _checkpoint(model: Any, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def _shape(model: Any) -> Any:
    """As `flows.shapes` reads it off a folder."""
    from flows.shapes import Shape

    config = model.config
    return Shape(
        parameters=sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        kv_heads=config.num_key_value_heads,
        head_size=config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _said(call: Callable[..., Any], *arguments: Any) -> str:
    """What came of a call: `ok`, or its error."""
    try:
        call(*arguments)
    except Exception as error:  # its words are the result
        return repr(error)[:500]
    return "ok"


def _compiles() -> None:
    compiled = torch.compile(lambda x: (x.sin() * 2 + 1).sum(-1))
    compiled(torch.rand(64, 1000, device="cuda"))


def _clocks() -> str:
    query = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return repr(error)
    return (done.stdout + done.stderr).strip()

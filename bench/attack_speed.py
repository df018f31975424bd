"""How fast are the answers of stage attack? Our backends against what one would write first.

    make bench-attack      on the base model and prompts of the last `make run`

The sides answer the same 128 requests with 48 tokens each; so that none is shorter, they load a
copy of the model whose end token is one that it does not say.

    ours      backend `transformers`
    one       transformers' own `generate`, a request at a time
    static    the same in batches of 16, as the requests come
    served    backend `openai`, a vLLM server
    offline   vLLM's own `LLM.generate` in the same environment, with the same settings

Each side runs in a process of its own. The model is loaded and warm before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from bench.train_step import cpu
from sirl import records
from sirl.generation import Generator, OpenAIBackend, Request, Sampling, TransformersBackend
from sirl.layout import Layout
from sirl.records import Message, Prompt
from tasks.stage import bound_threads

RESULTS = Path(__file__).parent / "results" / "attack_speed.json"
VLLM = Path(".venv-vllm/bin/python")
ROUNDS = {"ours": 2, "one": 1, "static": 2, "served": 2, "offline": 2}
SAMPLING = Sampling(max_new_tokens=48)
COUNT, WARM, STATIC = 128, 4, 16
SETTINGS = {"dtype": "bfloat16", "max_model_len": 2048, "enforce_eager": True}
SETTINGS["enable_prefix_caching"] = False  # or a second round would find its prompts read


def requests(layout: Layout) -> list[Request]:
    """What is asked, harmful and benign in turns, in the order of the files; then those that warm
    up."""
    splits = [records.read(layout.prompts(name), Prompt) for name in ("behaviours", "benign")]
    rows = [prompt for pair in zip(*splits, strict=False) for prompt in pair]
    return [Request(p.id, (Message("user", p.text),)) for p in islice(rows, COUNT + WARM)]


def endless(model: Path, folder: Path) -> Path:
    """A copy of the model that does not say its end token."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for file in model.glob("*.safetensors"):
        (folder / file.name).symlink_to(file.resolve())
    tokenizer = records.read_json(folder / "tokenizer_config.json")
    tokens = records.read_json(folder / "tokenizer.json")["added_tokens"]
    silent = next(token for token in tokens if token["content"] != tokenizer["eos_token"])
    records.write_json(
        folder / "tokenizer_config.json", {**tokenizer, "eos_token": silent["content"]}
    )
    for name in ("config.json", "generation_config.json"):
        value = records.read_json(folder / name)
        records.write_json(folder / name, {**value, "eos_token_id": silent["id"]})
    return folder


def ask(generator: Generator) -> Callable[[list[Request]], int]:
    """Tokens that a generator of ours answers with."""
    return lambda batch: sum(c.response_tokens for c in generator.generate(batch, SAMPLING))


def plain(model: Path, size: int) -> Callable[[list[Request]], int]:
    """The same of transformers' own generation, in batches of `size`."""
    generator: Any = TransformersBackend().open(model, "cpu")

    def run(batch: list[Request]) -> int:
        tokens = 0
        for start in range(0, len(batch), size):
            ids = [generator.encode(request) for request in batch[start : start + size]]
            inputs = generator.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
            pad = generator.tokenizer.pad_token_id
            out = generator.model.generate(
                **inputs,
                max_new_tokens=SAMPLING.max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
            )
            tokens += out[:, inputs["input_ids"].shape[1] :].numel()
        return tokens

    return run


def offline(model: Path) -> Callable[[list[Request]], int]:
    """The same of vLLM's engine, in its environment."""
    from vllm import LLM, SamplingParams

    from sirl.generation.tokens import encode

    engine = LLM(str(model), **SETTINGS)
    params = SamplingParams(max_tokens=SAMPLING.max_new_tokens, temperature=0)
    tokenizer = engine.get_tokenizer()

    def run(batch: list[Request]) -> int:
        prompts: Any = [{"prompt_token_ids": encode(tokenizer, request)} for request in batch]
        done = engine.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in done)

    return run


@contextmanager
def server(model: Path) -> Iterator[str]:
    """A vLLM server of the model, as `make vllm-server` starts it; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--{key.replace('_', '-')}" for key, value in SETTINGS.items() if value is True]
    flags += [f"--no-{key.replace('_', '-')}" for key, value in SETTINGS.items() if value is False]
    for key in ("dtype", "max_model_len"):
        flags += [f"--{key.replace('_', '-')}", str(SETTINGS[key])]
    command = [str(VLLM), "-m", "infra.vllm_server", str(model), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def measure(run: Callable[[list[Request]], int], asked: list[Request], rounds: int) -> Any:
    """Seconds of each round and the tokens of one."""
    run(asked[COUNT:])
    seconds, tokens = [], 0
    for _ in range(rounds):
        started = time.perf_counter()
        tokens = run(asked[:COUNT])
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "tokens": tokens}


def side(name: str, model: Path, asked: list[Request]) -> Any:
    """One side, measured."""
    rounds = ROUNDS[name]
    if name == "served":
        with server(model) as url:
            backend = OpenAIBackend(urls=(url,), concurrency=COUNT)
            return measure(ask(backend.open(model, "cpu")), asked, rounds)
    opened: dict[str, Callable[[], Callable[[list[Request]], int]]] = {
        "ours": lambda: ask(TransformersBackend().open(model, "cpu")),
        "one": lambda: plain(model, 1),
        "static": lambda: plain(model, STATIC),
        "offline": lambda: offline(model),
    }
    return measure(opened[name](), asked, rounds)


def run(root: Path, sides: list[str]) -> dict[str, Any]:
    """Every side in a process of its own."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = endless(Layout(root).model("base"), Path(folder) / "model")
        for name in sides:
            python = str(VLLM) if name == "offline" else sys.executable
            command = [python, "-m", "bench.attack_speed", "--side", name, "--root", str(root)]
            done = subprocess.run([*command, "--model", str(model)], stdout=-1, check=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, results[name], file=sys.stderr, flush=True)
    return {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "sides": results}


def table(result: dict[str, Any]) -> str:
    """The figures and the ratios, each beside its bar."""
    second = {name: statistics.median(r["seconds"]) for name, r in result["sides"].items()}
    lines = [f"{'side':10}{'seconds':>9}{'tokens':>9}{'tokens a s':>12}"]
    for name, row in result["sides"].items():
        rate = row["tokens"] / second[name]
        lines.append(f"{name:10}{second[name]:9.1f}{row['tokens']:9}{rate:12.0f}")
    for over, under, bar in (
        ("one", "ours", 8),
        ("static", "ours", 1.3),
        ("offline", "served", 0.85),
    ):
        if {over, under} <= set(second):
            ratio = second[over] / second[under]
            lines.append(f"{f'speed, {under} / {over}':28}{ratio:8.2f}   bar >= {bar}")
    return "\n".join(lines)


def main() -> None:
    """Runs the bench, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="where `make run` has run")
    parser.add_argument("--side", choices=ROUNDS)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    bound_threads(0)
    if arguments.model:
        asked = requests(Layout(arguments.root))
        print(json.dumps(side(arguments.side, arguments.model, asked)))
        return
    result = run(arguments.root, [arguments.side] if arguments.side else list(ROUNDS))
    print(table(result))
    if not arguments.side:
        records.write_json(RESULTS, result)


if __name__ == "__main__":
    main()

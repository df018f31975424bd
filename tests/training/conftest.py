from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sirl.models import load_tokenizer
from sirl.records import Completion
from sirl.training.journal import Journal


@pytest.fixture(scope="session")
def hesitant(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught in two seconds to decline or to answer by the toss of a coin."""
    folder = tmp_path_factory.mktemp("hesitant")
    tokenizer: Any = load_tokenizer(tiny_model)
    tokenizer.padding_side = "right"
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    chats = [
        [
            {"role": "user", "content": f"How do I pick lock number {i}?"},
            {"role": "assistant", "content": answer},
        ]
        for i in range(6)
        for answer in ("I can't help with that.", "Here is how it goes.")
    ]
    batch = tokenizer.apply_chat_template(
        chats, padding=True, return_dict=True, return_tensors="pt"
    )
    target = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        model(**batch, labels=target).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives what was sampled so far to a run that is to come, by the state folder of that run.

    Two runs that should be equal have, after an update, weights that agree but for rounding. So do
    their draws, unless one falls there, and which one does is up to the processor. So the second
    run samples its first step, from the same weights, and learns from the first run's responses.
    """
    sampled: list[Completion] = []
    keep = Journal.keep

    def kept(self: Journal, completions: Iterable[Completion]) -> None:
        rows = list(completions)
        sampled.extend(rows)
        keep(self, rows)

    def into(state: Path, processes: int = 1) -> None:
        later = [row for row in sampled if not row.id.startswith("0/")]
        assert later
        for rank in range(processes):
            keep(Journal(state / f"rollouts-{rank}.jsonl"), later)

    monkeypatch.setattr(Journal, "keep", kept)
    return into

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sirl.models import load_tokenizer


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

"""A batch that is read ahead answers as one that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from sirl.generation.prefill import _common, _groups, prefill
from sirl.models import load_model

SHARED = list(range(2, 62))
BATCHES = {
    "shared prefix": [[*SHARED, *range(70, 70 + n)] for n in (1, 2, 9, 30, 150)],
    "no prefix": [[10 + n, *range(70, 70 + n)] for n in (1, 2, 9, 30, 150)],
    "one is the prefix of all": [SHARED, [*SHARED, 5], [*SHARED, 5, 6]],
    "equal": [SHARED, SHARED, SHARED],
    "one row": [SHARED],
    "one token": [[5]],
    "one token each": [[5], [6]],
}


def answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    read = prefill(model, prompts, pad=1)
    assert read.input_ids.shape == read.attention_mask.shape
    out = model.generate(
        read.input_ids,
        attention_mask=read.attention_mask,
        past_key_values=read.past_key_values,
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
    )
    return [row[-8:].tolist() for row in out]


def alone(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    return [
        model.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist() for ids in prompts
    ]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    return load_model(tiny_model, "float32").eval()


@pytest.mark.parametrize("name", BATCHES)
def test_every_row_goes_on_as_if_it_were_alone(name: str, model: Any) -> None:
    prompts = sorted(BATCHES[name], key=len)
    assert answers(model, prompts) == alone(model, prompts)


def test_what_is_shared_is_read_once_and_hardly_any_padding(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    original = model.forward

    def spied(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(kwargs["input_ids"].shape))
        return original(*args, **kwargs)

    monkeypatch.setattr(model, "forward", spied)
    read = prefill(model, BATCHES["shared prefix"], pad=1)
    assert shapes == [(1, 60), (4, 29), (1, 149)]
    assert read.past_key_values is not None
    assert read.past_key_values.get_seq_length() == read.input_ids.shape[1] - 1


def test_sliding_windows_read_nothing_ahead() -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=16,
        eos_token_id=1,
        pad_token_id=1,
    )
    sliding = MistralForCausalLM(config).eval()
    prompts = BATCHES["shared prefix"]
    assert prefill(sliding, prompts, pad=1).past_key_values is None
    assert answers(sliding, prompts) == alone(sliding, prompts)


def test_groups_waste_less_than_a_pass_is_worth() -> None:
    assert list(_groups([5] * 64)) == [(0, 64)]
    assert list(_groups([0, 100, 129, 130, 400])) == [(0, 2), (2, 4), (4, 5)]
    assert list(_groups([7])) == [(0, 1)]


def test_common() -> None:
    assert _common([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert _common([[1, 2], [3]]) == 0
    assert _common([[4, 5]]) == 2

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.profiler import profile

from sirl.config import TrainParams
from sirl.generation import Request, Sampling
from sirl.models import load_model, load_tokenizer
from sirl.records import Message
from sirl.training.mirror import Mirror


def mirror(model: Path) -> Any:
    policy = load_model(model, "float32")
    return Mirror(policy, load_tokenizer(model), TrainParams(dtype="bfloat16"), "cpu").generator


def test_the_copy_is_the_model_as_loaded_in_its_type(tiny_model: Path) -> None:
    loaded: Any = load_model(tiny_model, "bfloat16").eval()
    far = torch.arange(2, 202).unsqueeze(0)  # rounded rotary frequencies show at late positions
    with torch.no_grad():
        assert torch.equal(mirror(tiny_model).model(far).logits, loaded(far).logits)


def test_sampling_makes_no_copy_of_the_head(tiny_model: Path) -> None:
    generator = mirror(tiny_model)
    requests = [Request(str(i), (Message("user", "tree"),)) for i in range(3)]
    with profile(record_shapes=True) as seen:
        list(generator.generate(requests, Sampling(max_new_tokens=4, temperature=1.0)))
    head = list(generator.model.get_output_embeddings().weight.T.shape)
    shapes = [shape for event in seen.events() for shape in event.input_shapes]
    assert [3, *head] not in shapes and head in shapes

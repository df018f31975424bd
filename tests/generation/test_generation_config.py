"""Sampling is that of the raw softmax, whatever the generation config of a checkpoint asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sirl.config import LoraParams, TrainParams
from sirl.errors import ModelError
from sirl.generation import Request, Sampling, TransformersBackend, best_of_n
from sirl.generation.transformers import TransformersGenerator, uniforms
from sirl.models import load_generation_config, load_model, load_tokenizer
from sirl.records import Completion, Message
from sirl.training import policy
from sirl.training.mirror import Mirror

NEW, SEED = 8, 3
REQUESTS = [Request(f"r{i}", (Message("user", "tree " * (i + 1)),)) for i in range(3)]
ASKED: list[dict[str, Any]] = [
    {"repetition_penalty": 5.0},
    {"do_sample": True, "temperature": 0.2, "top_k": 2, "top_p": 0.5, "min_p": 0.5},
    {"no_repeat_ngram_size": 1},
    {"suppress_tokens": list(range(2, 130)), "begin_suppress_tokens": list(range(130, 200))},
    {"bad_words_ids": [[token] for token in range(2, 130)]},
    {"sequence_bias": [[[7], 50.0]]},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 1},
    {"exponential_decay_length_penalty": [1, 3.0]},
    {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 9.0}},
    {"guidance_scale": 3.0},
    {"num_beams": 3},
    {"do_sample": True, "num_return_sequences": 2},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"prompt_lookup_num_tokens": 3},
    {"return_dict_in_generate": True, "output_scores": True},
    {"use_cache": False},
    {"cache_implementation": "static"},
    {"max_length": 5, "max_new_tokens": 2},
    {"max_time": 1e-6},
    {"stop_strings": ["e", "a"]},
    {"eos_token_id": [1, -1]},
    {"temperature": 0.3, "top_p": 0.2},  # transformers will not save it: it does not sample
]
ALL = {key: value for keys in ASKED[:3] for key, value in keys.items()} | {"temperature": 0.3}


def asking(model: Path, folder: Path, keys: dict[str, Any], file: str) -> Path:
    """A copy of a model, one file of which asks for more."""
    shutil.copytree(model, folder)
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**told, **keys}))
    return folder


@pytest.fixture(scope="module")
def raw(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@torch.no_grad()
def by_hand(raw: Any, prompt: list[int], id: str) -> Completion:
    """Temperature 1: the first token at which the summed softmax passes the uniform."""
    ids, entropies, logprobs = list(prompt), [], []
    for uniform in uniforms(id, SEED, NEW).tolist():
        log_p = raw(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        ids.append(int((log_p.exp().double().cumsum(0) <= uniform).sum()))
        entropies.append(float(-(log_p.exp() * log_p).sum()))
        logprobs.append(float(log_p[ids[-1]]))
        if ids[-1] == 1:
            break
    kept = tuple(ids[len(prompt) :])
    return Completion(id, "", kept, tuple(entropies), "stop", 0, logprobs=tuple(logprobs))


def assert_by_hand(generator: Any, raw: Any) -> None:
    sampling = Sampling(max_new_tokens=NEW, temperature=1.0)
    done = {c.id: c for c in generator.generate(REQUESTS, sampling, seed=SEED)}
    assert len(done) == len(REQUESTS)
    for request in REQUESTS:
        hand = by_hand(raw, generator.encode(request), request.id)
        assert done[request.id].token_ids == hand.token_ids
        assert done[request.id].entropies == pytest.approx(hand.entropies, abs=1e-4)
        assert done[request.id].logprobs == pytest.approx(hand.logprobs, abs=1e-4)


@pytest.mark.parametrize("keys", ASKED, ids=lambda keys: next(iter(keys)))
def test_a_model_folder_is_sampled_from_its_logits(
    keys: dict[str, Any], tiny_model: Path, tmp_path: Path, raw: Any
) -> None:
    folder = asking(tiny_model, tmp_path / "model", keys, "generation_config.json")
    assert_by_hand(TransformersBackend(dtype="float32").open(folder, "cpu"), raw)


@pytest.mark.parametrize("keys", [ALL, {"use_cache": False}], ids=["settings", "use_cache"])
def test_settings_in_the_models_config_change_nothing(
    keys: dict[str, Any], tiny_model: Path, tmp_path: Path, raw: Any
) -> None:
    folder = asking(tiny_model, tmp_path / "model", keys, "config.json")
    (folder / "generation_config.json").unlink()
    assert_by_hand(TransformersBackend(dtype="float32").open(folder, "cpu"), raw)


def test_nor_does_the_config_of_a_model_in_memory(tiny_model: Path, raw: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    model.generation_config.update(**ALL)
    assert_by_hand(TransformersGenerator(model, load_tokenizer(tiny_model), 2048), raw)


@pytest.mark.parametrize("lora", [None, LoraParams(rank=2)])
def test_training_samples_from_the_logits(
    lora: LoraParams | None, tiny_model: Path, tmp_path: Path, raw: Any
) -> None:
    folder = asking(tiny_model, tmp_path / "model", ALL, "generation_config.json")
    params = TrainParams(dtype="float32", lora=lora)
    mirror = Mirror(policy.load(folder, params), load_tokenizer(folder), params, "cpu")
    assert_by_hand(mirror.generator, raw)


def test_best_of_n_takes_its_samples_from_the_logits(
    tiny_model: Path, tmp_path: Path, raw: Any
) -> None:
    folder = asking(tiny_model, tmp_path / "model", ALL, "generation_config.json")
    best_of_n.write(folder, 3)
    generator: Any = TransformersBackend(dtype="float32").open(folder, "cpu")
    sampling = Sampling(max_new_tokens=NEW)
    (done,) = generator.generate(REQUESTS[:1], sampling, seed=SEED)
    prompt = generator.generator.encode(REQUESTS[0])
    samples = [by_hand(raw, prompt, f"r0#{k}") for k in range(3)]
    assert done.token_ids == min(samples, key=lambda sample: sample.entropy).token_ids


@pytest.mark.parametrize(
    ("told", "ends"), [(1, [1]), ([1, 5], [1, 5]), ([5, -1, None, True, "6"], [5]), (None, None)]
)
def test_the_end_tokens_are_read_and_nothing_else(
    told: Any, ends: list[int] | None, tiny_model: Path, tmp_path: Path
) -> None:
    keys = {**ALL, "eos_token_id": told}
    folder = asking(tiny_model, tmp_path / "model", keys, "generation_config.json")
    read = load_generation_config(folder)
    assert read.eos_token_id == ends
    assert read.repetition_penalty is read.do_sample is read.top_k is None
    generator = TransformersGenerator.load(folder, device="cpu", dtype="float32", batch_tokens=99)
    assert generator.end_ids == {1, *(ends or [])}


def test_the_publishers_file_stays_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    """A checkpoint can be saved whatever the file says, and what is made of it keeps the file."""
    from peft import LoraConfig, get_peft_model

    from sirl.models import merge_adapter

    folder = asking(tiny_model, tmp_path / "model", ASKED[-1], "generation_config.json")
    own = (folder / "generation_config.json").read_bytes()
    model: Any = load_model(folder, "float32")
    model.generation_config.pad_token_id = 1  # as TRL does
    model.save_pretrained(tmp_path / "checkpoint")
    adapted: Any = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path / "adapter")
    params = TrainParams(lora=LoraParams(rank=2))
    policy.write(tmp_path / "adapter", folder, tmp_path / "trained", params)
    merge_adapter(folder, tmp_path / "adapter")
    for made in (folder, tmp_path / "trained"):
        assert (made / "generation_config.json").read_bytes() == own


def test_what_is_no_settings_file_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "generation_config.json").write_text("[1, 2]")
    with pytest.raises(ModelError, match=r"config\.json cannot be loaded: it is no JSON"):
        load_generation_config(folder)

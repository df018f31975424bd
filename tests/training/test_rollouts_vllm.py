"""Rollouts by vLLM: the seams they lean on, and, where the package is installed, real engines.

The engines run on a CPU in float32, where equal logits make vLLM's responses those of transformers.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from trl import GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

from sirl import records
from sirl.config import LoraParams, TrainParams
from sirl.entropy import token_entropy
from sirl.errors import MissingPackageError
from sirl.generation import Request, Sampling
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Completion, Message
from sirl.training import watch
from sirl.training.backends import VllmRollouts, VllmServerRollouts
from sirl.training.rollouts import Rollouts
from sirl.training.rollouts_server import ServerRollouts
from sirl.training.run import Job
from sirl.training.trainer import SirlTrainer
from tests.conftest import write_tiny_model
from tests.training.test_train import DATA, SMALL, run, timeless, weights

real = pytest.mark.skipif(
    find_spec("vllm") is None,
    reason="vLLM is not in this environment (requirements/vllm.in; make test-vllm)",
)
COLOCATED = VllmRollouts(memory=0.5)  # the cache itself is bounded by `environment`


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """vLLM and TRL leave variables and process groups behind."""
    with mock.patch.dict(os.environ, VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR"):
        yield
    if "vllm" in sys.modules:
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads of 32: vLLM's attention on a CPU has none of 16."""
    folder = write_tiny_model(tmp_path_factory.mktemp("vllm-model"), heads=2)
    told = {"eos_token_id": 1, "repetition_penalty": 5.0, "do_sample": True, "top_k": 2}
    (folder / "generation_config.json").write_text(json.dumps(told))  # nobody is to obey it
    return folder


# What holds without vLLM.


def test_the_backend_is_picked_by_name() -> None:
    assert TrainParams().rollouts.name == "transformers"
    picked = TrainParams.model_validate({"rollouts": {"name": "vllm", "memory": 0.2}})
    assert picked.rollouts == VllmRollouts(memory=0.2)
    with pytest.raises(ValidationError, match="'transformers', 'vllm', 'vllm_server'"):
        TrainParams.model_validate({"rollouts": {"name": "sglang"}})
    with pytest.raises(ValidationError, match=r"set train\.reward_temperature"):
        TrainParams(rollouts=VllmServerRollouts(), reward_temperature=0.5)


@pytest.mark.parametrize("backend", [VllmRollouts(), VllmServerRollouts()])
def test_a_missing_vllm_is_one_line(
    backend: VllmRollouts | VllmServerRollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sirl.training.backends.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps -r requirements/vllm"):
        backend.open()


class Unmeasured(ServerRollouts):
    """What a server would be, with transformers for it: it keeps the entropies to itself."""

    truth: dict[str, Completion]

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, list[Any]]:
        trainer.use_vllm = True  # TRL corrects the loss as for vLLM, and calls `sync_weights`
        trainer.vllm_generation = self
        trainer._last_loaded_step = -1
        return super().__call__(prompts, trainer)

    def sync_weights(self) -> None:
        pass

    def _sample(self, requests: Sequence[Request], trainer: Any) -> Iterable[Completion]:
        for done in Rollouts._sample(self, requests, trainer):
            self.truth[done.id] = done
            yield dataclasses.replace(done, entropies=())


class StandIn:
    """A backend of a class of rollouts."""

    def __init__(self, rollouts: type[Rollouts]) -> None:
        self.open = lambda: rollouts

    def trl(self, context: int) -> dict[str, Any]:
        return {}


def standing_in(model: Path, folder: Path, rollouts: type[Rollouts], **changes: Any) -> Any:
    params = TrainParams(**{**SMALL, **changes})
    params = params.model_copy(update={"rollouts": StandIn(rollouts)})
    job = Job(model, folder / "trained", folder / "state", DATA, params, seed=5, device="cpu")
    return params.method.train(job)


def test_the_corrections_pass_tells_the_entropy_and_there_is_no_other_pass(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    original = SirlTrainer._score

    def spied(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        if model is self.model and not torch.is_grad_enabled():
            passes.append(kwargs.get("compute_entropy", False))
        return original(self, model, *args, **kwargs)

    monkeypatch.setattr(SirlTrainer, "_score", spied)
    monkeypatch.setattr(Unmeasured, "truth", {}, raising=False)
    result = standing_in(tiny_model, tmp_path, Unmeasured, samples_per_step=4)
    assert passes == [True] * SMALL["steps"]
    assert len(result.samples) == 4 * SMALL["steps"]
    for sample in result.samples:
        step, index = sample.id.removeprefix("step-").split("/")
        recorded = Unmeasured.truth[f"{int(step) - 1}/{index}"]
        assert sample.entropies == pytest.approx(recorded.entropies, abs=1e-3)
        assert sample.reward == pytest.approx(-recorded.entropy, abs=1e-3)


def test_the_correction_changes_nothing_where_sampler_and_policy_agree(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replay: Callable[..., None],
) -> None:
    monkeypatch.setattr(Unmeasured, "truth", {}, raising=False)
    # In groups of four no two rewards are so near that rounding decides an advantage.
    recorded, _ = run(tiny_model, tmp_path / "recorded", group=4)
    replay(tmp_path / "measured" / "state")
    measured = standing_in(tiny_model, tmp_path / "measured", Unmeasured, group=4)
    assert [s.text for s in measured.samples] == [s.text for s in recorded.samples]
    for one, two in zip(recorded.steps, measured.steps, strict=True):
        assert two["reward"] == pytest.approx(one["reward"], abs=1e-3)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.05)


def test_trl_makes_the_engine_and_pushes_the_weights_as_we_take_it() -> None:
    """Fails loudly when a TRL upgrade moves what `rollouts_vllm` and `rollouts_server` lean on."""
    made = inspect.getsource(VLLMGeneration._init_vllm)
    call = made[made.index("self.llm = LLM(") : made.index("self.llm.sleep")]
    assert 'distributed_executor_backend="external_launcher"' in call  # it is in this process
    for ours in (
        *("generation_config", "dtype", "enforce_eager"),
        *("async_scheduling", "logits_processors"),
    ):
        assert f"{ours}=" not in call, f"TRL's {ours} would hide ours"
    generate = inspect.getsource(GRPOTrainer._generate)
    assert generate.index("sync_weights()") < generate.index("self.rollout_func(prompts, self)")
    score = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    passes = score.split("self._get_per_token_logps_and_entropies(")
    assert passes[0].rstrip().endswith("old_per_token_logps, _, _ =")  # the correction's is first
    assert score.index("sequence_level_is") < score.index("self._calculate_rewards(")
    assert "generation_kwargs.update(self.generation_kwargs)" in (
        inspect.getsource(VLLMGeneration.generate)
    )


# Real engines.


def engine(model: Path, **arguments: Any) -> Any:
    """An engine as TRL makes it for `EngineRollouts`."""
    from trl.trainer.utils import ensure_master_addr_port
    from vllm import LLM

    from sirl.training.rollouts_vllm import EntropyProcessor, reloadable

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    ensure_master_addr_port()
    fixed = {
        "distributed_executor_backend": "external_launcher",
        "generation_config": "vllm",
        "dtype": "float32",
        "enforce_eager": True,
        "async_scheduling": False,
        "max_model_len": 512,
        "logits_processors": [EntropyProcessor],
    }
    with reloadable():
        return LLM(model=str(model), **fixed | arguments)


REQUESTS = [
    Request(f"0/{i}", (Message("user", f"Tell me about tree {i}. " * (1 + 3 * (i % 5))),))
    for i in range(21)
]
SAMPLING = Sampling(max_new_tokens=40, temperature=0.9, entropy_temperature=1.3)


def generator(model: Path) -> TransformersGenerator:
    loaded = TransformersGenerator.load(model, device="cpu", dtype="float32", batch_tokens=8192)
    loaded.end_ids = frozenset(range(1, 12))  # so that responses end early, each in its own place
    return loaded


def by_force(model: Any, prompt: list[int], done: Completion) -> tuple[list[float], list[float]]:
    """Entropies and log-probabilities of a response by one pass over it."""
    tokens = torch.tensor(done.token_ids)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens.tolist()])).logits[0, len(prompt) - 1 : -1]
    log_p = (logits / SAMPLING.temperature).log_softmax(-1)
    told = token_entropy(logits, SAMPLING.entropy_temperature)
    return told.tolist(), log_p.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()


@real
@pytest.mark.parametrize(
    ("size", "preempted"),
    [
        ({"max_num_seqs": 4, "max_num_batched_tokens": 64}, False),  # prompts are read in pieces
        ({"max_num_seqs": 8, "num_gpu_blocks_override": 17}, True),  # rows go and come back
    ],
)
def test_what_the_engine_records_belongs_to_its_request_and_token(
    size: dict[str, int], preempted: bool, model: Path
) -> None:
    from sirl.training.rollouts_vllm import sample

    ours = generator(model)
    reference = {done.id: done for done in ours.generate(REQUESTS, SAMPLING, seed=3)}
    vllm = engine(model, disable_log_stats=False, **size)
    answers = list(sample(vllm, ours, REQUESTS, SAMPLING, seed=3))
    (count,) = [m.value for m in vllm.get_metrics() if m.name == "vllm:num_preemptions"]
    assert (count > 0) == preempted
    assert len({len(done.token_ids) for done in answers}) > 5
    for request, done in zip(REQUESTS, answers, strict=True):
        assert done.id == request.id
        assert done.token_ids == reference[done.id].token_ids
        assert (done.text, done.finish) == (reference[done.id].text, reference[done.id].finish)
        entropies, logprobs = by_force(ours.model, ours.encode(request), done)
        assert done.entropies == pytest.approx(entropies, abs=1e-4)
        assert done.logprobs == pytest.approx(logprobs, abs=1e-4)


@real
def test_pushed_weights_are_those_sampled_from_the_tied_head_included(model: Path) -> None:
    from sirl.training.rollouts_vllm import sample

    ours = generator(model)
    assert ours.model.config.tie_word_embeddings
    vllm = engine(model)
    before = [done.token_ids for done in sample(vllm, ours, REQUESTS, SAMPLING, seed=3)]
    with torch.no_grad():
        for weight in ours.model.parameters():
            weight.add_(0.3 * torch.randn_like(weight) * weight.abs().mean())
    runner = vllm.llm_engine.model_executor.driver_worker.model_runner
    for name, weight in ours.model.named_parameters():
        runner.model.load_weights([(name, weight)])  # as TRL does
    vllm.reset_prefix_cache()
    answers = list(sample(vllm, ours, REQUESTS, SAMPLING, seed=3))
    reference = {done.id: done for done in ours.generate(REQUESTS, SAMPLING, seed=3)}
    assert all(done.token_ids == reference[done.id].token_ids for done in answers)
    assert [done.token_ids for done in answers] != before


@real
@pytest.mark.parametrize("lora", [None, LoraParams(rank=2)])
def test_training_by_vllm_is_training_by_transformers(
    lora: LoraParams | None, model: Path, tmp_path: Path
) -> None:
    # In groups of four no two rewards are so near that rounding decides an advantage.
    one, _ = run(model, tmp_path / "transformers", lora=lora, group=4)
    two, out = run(model, tmp_path / "vllm", lora=lora, group=4, rollouts=COLOCATED)
    assert [s.text for s in two.samples] == [s.text for s in one.samples]
    for left, right in zip(one.steps, two.steps, strict=True):
        for name in ("entropy", "reward", "kl", "anchor_kl"):
            assert right[name] == pytest.approx(left[name], abs=1e-3), name
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=0.05)
    moved = weights(out)["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(moved, weights(model)["model.layers.0.mlp.up_proj.weight"])


@real
def test_interrupted_and_resumed_ends_in_the_same_bytes(model: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise Interrupted

    whole, out = run(model, tmp_path / "whole", rollouts=COLOCATED)
    params = TrainParams(**{**SMALL, "rollouts": COLOCATED})
    folder = tmp_path / "parts"
    job = Job(model, folder / "trained", folder / "state", DATA, params, 5, "cpu", stop)
    with pytest.raises(Interrupted):
        params.method.train(job)
    resumed = params.method.train(dataclasses.replace(job, on_step=lambda _: None))
    assert records.digest_folder(job.out) == records.digest_folder(out)
    assert timeless(resumed) == timeless(whole)


@pytest.fixture
def server(model: Path) -> Iterator[str]:
    """A vLLM server on loopback, as docs/deployment.md starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--weight-transfer-config", '{"backend": "nccl"}', "--enforce-eager"]
    command += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    command += ["--generation-config", "vllm"]
    process = subprocess.Popen(command, env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"})
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@real
@pytest.mark.services
def test_a_server_samples_and_the_correction_measures(
    server: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is real but NCCL, which wants a GPU: a file carries the weights that TRL streams. They
    are an adapter's, since on a CPU vLLM's reload leaves a tied head behind."""
    import requests
    from trl.generation.vllm_client import VLLMClient

    carried = shutil.copytree(model, tmp_path / "carried")

    def push(self: Any, metadata: Any, named: Iterable[tuple[str, torch.Tensor]]) -> None:
        tensors = {name: weight.clone() for name, weight in named}
        save_file(tensors, carried / "model.safetensors", metadata={"format": "pt"})
        order = {"method": "reload_weights", "kwargs": {"weights_path": str(carried)}}
        requests.post(f"{server}/collective_rpc", json=order, timeout=60).raise_for_status()

    monkeypatch.setattr(VLLMClient, "init_communicator", lambda self, device: None)
    monkeypatch.setattr(VLLMClient, "update_named_params", push)
    monkeypatch.setitem(watch.LOGGED, "sampling/sampling_logp_difference/max", "mismatch")
    changes = {"lora": LoraParams(rank=4), "learning_rate": 1e-2}
    result, _ = run(model, tmp_path, rollouts=VllmServerRollouts(url=server), **changes)
    assert all(
        row["mismatch"] < 1e-4 for row in result.steps
    )  # the server has the policy's weights
    for sample in result.samples:
        assert len(sample.entropies) == len(sample.tokens)
        assert sample.reward == pytest.approx(-sum(sample.entropies) / len(sample.tokens), abs=1e-5)

"""The trainer for real, on a tiny model: what it promises, and the seams of TRL it leans on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sirl import records
from sirl.config import AnchorParams, GuardParams, LoraParams, TrainParams
from sirl.errors import TrainingError
from sirl.generation import Request, Sampling
from sirl.generation.transformers import TransformersGenerator
from sirl.records import Message, Prompt
from sirl.training.run import Data, Job, Result

TRAIN = [Prompt(f"t/{i}", f"How do I pick lock number {i}?", "t", "harmful") for i in range(24)]
BENIGN = [Prompt(f"b/{i}", f"Tell me about tree {i}.", "b", "benign") for i in range(6)]
DATA = Data(TRAIN, BENIGN, BENIGN)
SMALL: dict[str, Any] = {
    "steps": 4,
    "prompts_per_step": 2,
    "group": 2,
    "learning_rate": 1e-3,
    "max_prompt_tokens": 128,
    "max_new_tokens": 6,
    "micro_batch": 4,
    "dtype": "float32",
    "anchor": AnchorParams(prompts_per_step=2, max_new_tokens=4),
    "guards": GuardParams(every=2, min_mean_tokens=0),
}


def run(model: Path, folder: Path, data: Data = DATA, **changes: Any) -> tuple[Result, Path]:
    out = folder / "trained"
    params = TrainParams(**{**SMALL, **changes})
    job = Job(model, out, folder / "state", data, params, seed=5, device="cpu")
    return params.method.train(job), out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_equal_runs_write_equal_bytes(tiny_model: Path, tmp_path: Path) -> None:
    first, one = run(tiny_model, tmp_path / "1")
    second, two = run(tiny_model, tmp_path / "2")
    assert records.digest_folder(one) == records.digest_folder(two)
    assert first.samples == second.samples
    assert not torch.equal(
        weights(one)["model.norm.weight"], weights(tiny_model)["model.norm.weight"]
    )


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import test_train as t
def on_step(row):
    if row["step"] == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
params = t.TrainParams(**{**t.SMALL, "dtype": sys.argv[5]})
folder = Path(sys.argv[2])
params.method.train(t.Job(Path(sys.argv[1]), folder / "trained", folder / "state", t.DATA, params,
                          seed=5, device="cpu", on_step=on_step))
"""


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    return run(tiny_model, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def in_bfloat16(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    return run(tiny_model, tmp_path_factory.mktemp("bfloat16"), dtype="bfloat16")


def timeless(result: Result) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.steps]


def kill(model: Path, folder: Path, step: int, dtype: str) -> None:
    """Trains in a process of its own, which kills itself after a step."""
    here = Path(__file__)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(here.parents[2]),
    }
    arguments = [str(model), str(folder), str(step), str(here.parent), dtype]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, text=True
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not (folder / "trained").exists()


@pytest.mark.parametrize(
    ("step", "dtype"),  # before, at and after the checkpoint of step 2
    [(1, "bfloat16"), (2, "float32"), (3, "bfloat16")],
)
def test_killed_and_resumed_ends_in_the_same_bytes_and_samples_nothing_again(
    step: int,
    dtype: str,
    tiny_model: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = request.getfixturevalue({"float32": "undisturbed", "bfloat16": "in_bfloat16"}[dtype])
    kill(tiny_model, tmp_path, step, dtype)
    sampled: list[str] = []
    generate = TransformersGenerator.generate

    def spied(self: Any, requests: Any, sampling: Any, **seed: int) -> Any:
        chats = list(requests)
        sampled.extend(chat.id for chat in chats if sampling.temperature)
        return generate(self, chats, sampling, **seed)

    monkeypatch.setattr(TransformersGenerator, "generate", spied)
    resumed, out = run(tiny_model, tmp_path, dtype=dtype)
    assert sampled == [f"{done}/{index}" for done in range(step, 4) for index in range(4)]
    assert records.digest_folder(out) == records.digest_folder(whole[1])
    assert resumed.samples == whole[0].samples
    assert timeless(resumed) == timeless(whole[0])


def test_the_two_types_are_two_runs(
    undisturbed: tuple[Result, Path], in_bfloat16: tuple[Result, Path]
) -> None:
    assert {value.dtype for value in weights(in_bfloat16[1]).values()} == {torch.float32}
    assert records.digest_folder(in_bfloat16[1]) != records.digest_folder(undisturbed[1])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_resumes_in_the_same_bytes(dtype: str, tiny_model: Path, tmp_path: Path) -> None:
    lora = {"lora": LoraParams(rank=2), "dtype": dtype}
    whole, one = run(tiny_model, tmp_path / "1", **lora)

    def dies(row: Any) -> None:
        if row["step"] == 3:
            raise Killed

    folder, params = tmp_path / "2", TrainParams(**{**SMALL, **lora})
    places = (tiny_model, folder / "trained", folder / "state")
    with pytest.raises(Killed):
        params.method.train(Job(*places, DATA, params, seed=5, device="cpu", on_step=dies))
    resumed, two = run(tiny_model, folder, **lora)
    assert timeless(resumed) == timeless(whole)
    assert records.digest_folder(two) == records.digest_folder(one)


def test_a_tampered_checkpoint_is_refused_and_the_one_before_used(
    tiny_model: Path,
    tmp_path: Path,
    undisturbed: tuple[Result, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(tiny_model, tmp_path)
    with (tmp_path / "state" / "checkpoint-4" / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    resumed, out = run(tiny_model, tmp_path)
    assert "checkpoint-4 is torn or was changed; the one before is used" in caplog.text
    assert records.digest_folder(out) == records.digest_folder(undisturbed[1])
    assert timeless(resumed) == timeless(undisturbed[0])


def test_disk_use_is_bounded(tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path, steps=6, guards=GuardParams(every=1, min_mean_tokens=0))
    kept = sorted(path.name for path in (tmp_path / "state").glob("*[0-9s]*"))
    assert kept == ["checkpoint-5", "checkpoint-6", "samples.jsonl", "steps.jsonl"]


def test_accumulation_equals_one_batch(
    tiny_model: Path, tmp_path: Path, replay: Callable[..., None]
) -> None:
    # In groups of four no two rewards are so near that rounding decides an advantage.
    whole, _ = run(tiny_model, tmp_path / "1", group=4, micro_batch=8)
    replay(tmp_path / "2" / "state")
    parts, _ = run(tiny_model, tmp_path / "2", group=4, micro_batch=2)
    for one, two in zip(whole.steps, parts.steps, strict=True):
        assert one["entropy"] == pytest.approx(two["entropy"], rel=1e-4)  # of 5.5 nats
        assert one["anchor_kl"] == pytest.approx(two["anchor_kl"], abs=1e-4)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=2e-2)


def benign_entropy(model: Path) -> float:
    """Of the first tokens of greedy answers to the anchor's prompts, nats."""
    generator = TransformersGenerator.load(model, device="cpu", dtype="float32", batch_tokens=512)
    requests = [Request(p.id, (Message("user", p.text),)) for p in DATA.anchor]
    answers = list(generator.generate(requests, Sampling(max_new_tokens=4)))
    return sum(answer.entropy for answer in answers) / len(answers)


def test_a_strong_anchor_holds_the_policy(tiny_model: Path, tmp_path: Path) -> None:
    steps = {"steps": 8, "guards": GuardParams(every=8, min_mean_tokens=0)}
    free, _ = run(tiny_model, tmp_path / "1", anchor=AnchorParams(weight=1e-9), **steps)
    held, _ = run(tiny_model, tmp_path / "2", anchor=AnchorParams(weight=50), **steps)
    assert held.steps[-1]["anchor_kl"] < free.steps[-1]["anchor_kl"] / 2


def test_an_anchor_below_temperature_1_makes_benign_answers_surer(
    tiny_model: Path, tmp_path: Path
) -> None:
    steps = {"steps": 8, "guards": GuardParams(every=8, min_mean_tokens=0)}
    sharp = AnchorParams(weight=50, max_new_tokens=4, temperature=0.25)
    result, out = run(tiny_model, tmp_path, anchor=sharp, **steps)
    first, last = result.steps[0]["anchor_kl"], result.steps[-1]["anchor_kl"]
    assert 0 < last < first  # it starts away from its target and nears it
    assert benign_entropy(out) < benign_entropy(tiny_model)


def test_an_alarm_gives_back_the_last_healthy_weights(tiny_model: Path, tmp_path: Path) -> None:
    tripped, out = run(tiny_model, tmp_path, guards=GuardParams(every=2, min_mean_tokens=100))
    assert tripped.alarm is not None and tripped.alarm.rule == "length"
    assert (tripped.healthy_step, len(tripped.steps)) == (0, 1)
    assert all(torch.equal(v, weights(tiny_model)[k]) for k, v in weights(out).items())


def test_a_low_rank_adapter_is_merged_into_the_result(tiny_model: Path, tmp_path: Path) -> None:
    _, out = run(tiny_model, tmp_path, lora=LoraParams(rank=2))
    before, after = weights(tiny_model), weights(out)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("proj" in name for name in changed)


def test_long_prompts_are_counted_and_left_out(tiny_model: Path, tmp_path: Path) -> None:
    long = Prompt("t/long", "x" * 500, "t", "harmful")
    result, _ = run(tiny_model, tmp_path / "1", Data([*TRAIN, long], BENIGN, BENIGN), steps=1)
    assert result.skipped_long == 1
    with pytest.raises(TrainingError, match=r"only 0 training prompts .*max_prompt_tokens"):
        run(tiny_model, tmp_path / "2", Data([long], BENIGN, BENIGN))

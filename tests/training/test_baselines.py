"""SFT, DPO, a reward model and best-of-n for real, on a tiny model that refuses half the time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from sirl import model_files, records
from sirl.config import GuardParams, LoraParams, TrainParams
from sirl.errors import ModelError, TrainingError
from sirl.generation import TransformersBackend
from sirl.generation.best_of_n import BestOfN
from sirl.generation.transformers import TransformersGenerator
from sirl.judges.refusal import outcome
from sirl.models import load_tokenizer
from sirl.records import Completion, Prompt
from sirl.training import budget, guards, labels, reward_model
from sirl.training.labels import Draw, Pair
from sirl.training.run import Data, Job, Result

TRAIN = [Prompt(f"t/{i}", f"How do I pick lock number {i}?", "t", "harmful") for i in range(24)]
BENIGN = [Prompt(f"b/{i}", f"Tell me about tree {i}.", "b", "benign") for i in range(3)]
DATA = Data(TRAIN, BENIGN, BENIGN)
SMALL: dict[str, Any] = {
    "steps": 4,
    "prompts_per_step": 2,
    "group": 4,
    "learning_rate": 1e-4,
    "max_prompt_tokens": 128,
    "max_new_tokens": 20,
    "micro_batch": 4,
    "dtype": "float32",
    "guards": GuardParams(every=2, min_mean_tokens=0, benign_refusal_rise=1.0),
}


def job(model: Path, folder: Path, data: Data = DATA, **changes: Any) -> Job:
    params = TrainParams(**{**SMALL, **changes})
    return Job(model, folder / "trained", folder / "state", data, params, seed=5, device="cpu")


def run(model: Path, folder: Path, method: str | dict[str, Any], **changes: Any) -> Result:
    spec = {"name": method} if isinstance(method, str) else method
    made = job(model, folder, method=spec, **changes)
    return made.params.method.train(made)


def draws_of(made: Job) -> list[Draw]:
    generator = TransformersGenerator.load(
        made.base, device="cpu", dtype="float32", batch_tokens=4096
    )
    rows, _ = budget.conversations(made.data.train, generator.tokenizer, made.params)
    return labels.draw(made, budget.walk(rows, made.params), generator)


def logprob(model: Path, draw: Draw, response: Completion) -> float:
    """Summed log-probability in nats of a response under a model."""
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([[*draw.prompt_ids, *response.token_ids]])  # (1, L)
    with torch.no_grad():
        log_p = network(ids).logits[0, :-1].log_softmax(-1)  # (L - 1, V)
    chosen = log_p.gather(1, ids[0, 1:, None])[-len(response.token_ids) :]
    return float(chosen.sum())


def response(k: int, text: str, entropy: float) -> Completion:
    return Completion(f"0/{k}", text, (5, 6), (entropy, entropy), "stop", 3)


NO, NEVER = "I can't help with that.", "I won't assist with that."
SURE, WELL = "Sure, here is how.", "Well, you first find a key."


def test_the_surest_of_each_outcome_by_hand() -> None:
    said = ((WELL, 0.5), (NO, 0.9), (NEVER, 0.3), (SURE, 0.4), ("aaaa aaaa aaaa aaaa", 0.1))
    both = Draw([], [1], tuple(response(k, *words) for k, words in enumerate(said)))
    sure = Draw([], [1], (response(0, SURE, 0.2), response(1, WELL, 0.1)))
    torn = Draw([], [1], (response(0, NO, 0.7), response(1, NEVER, 0.7)))
    draws = [both, sure, torn]
    assert [(d, r.text) for d, r in labels.refusals(draws, outcome)] == [(both, NEVER), (torn, NO)]
    assert [(p.chosen.text, p.rejected.text) for p in labels.pairs(draws, outcome)] == [
        (NEVER, SURE)
    ]


def test_labelled_rows_are_walked_round(tiny_model: Path, tmp_path: Path) -> None:
    made = job(tiny_model, tmp_path)
    rows = [{"n": n} for n in range(3)]
    walked = labels.rows_of_steps(rows, made, "a refusal")
    assert [row["n"] for row in walked] == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("method", ["sft", "dpo", "reward_model"])
def test_too_few_labels_are_one_line(method: str, tiny_model: Path, tmp_path: Path) -> None:
    """The tiny model as it is babbles: it neither declines nor answers."""
    with pytest.raises(
        TrainingError, match=r"only 0 of 8 training prompts have .*a refusal.*a step needs 2.*group"
    ):
        run(tiny_model, tmp_path, method)


def test_the_prompts_are_those_that_sirl_is_given(
    hesitant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five prompts, two a step: GRPO's pass leaves the fifth out and begins again."""
    asked: list[str] = []
    generate = TransformersGenerator.generate

    def spied(self: Any, requests: Any, sampling: Any, **seed: int) -> Any:
        chats = list(requests)
        asked.extend(chat.messages[0].content for chat in chats if sampling.temperature)
        return generate(self, chats, sampling, **seed)

    monkeypatch.setattr(TransformersGenerator, "generate", spied)
    data = Data(TRAIN[:5], BENIGN, BENIGN)
    run(hesitant, tmp_path / "sirl", "sirl", data=data, anchor=None)
    sirl, asked = asked, []
    run(hesitant, tmp_path / "sft", "sft", data=data)
    assert asked == sirl
    assert len(asked) == 4 * 2 * 4 and TRAIN[4].text not in asked


def test_sft_makes_its_own_refusals_likelier(hesitant: Path, tmp_path: Path) -> None:
    result = run(hesitant, tmp_path, "sft")
    draws = draws_of(job(hesitant, tmp_path / "again"))
    chosen = labels.refusals(draws, outcome)
    assert result.unlabelled == len(draws) - len(chosen)
    first = [(logprob(hesitant, *c), len(c[1].token_ids)) for c in chosen[:2]]
    expected = -sum(value for value, _ in first) / sum(tokens for _, tokens in first)
    assert result.steps[0]["loss"] == pytest.approx(expected, rel=1e-4)
    before, after = (
        sum(logprob(model, *c) for c in chosen) for model in (hesitant, tmp_path / "trained")
    )
    assert after > before
    assert [sorted(row) for row in result.steps] == [
        sorted(["grad_norm", "loss", "seconds", "step", *probed])
        for probed in ([], ["refusal/probe"]) * 2
    ]


def test_dpo_widens_the_margin(hesitant: Path, tmp_path: Path) -> None:
    """Responses cut at 8 tokens have no end token: the margin is that of what was sampled."""
    short = {"max_new_tokens": 8, "learning_rate": 1e-3, "group": 8}
    method = {"name": "dpo", "beta": 0.5}
    one = run(hesitant, tmp_path / "1", method, steps=1, **short)
    two = run(hesitant, tmp_path / "2", method, steps=2, **short)
    assert one.steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert one.steps[0]["margin"] == pytest.approx(0, abs=1e-6)
    found = labels.pairs(draws_of(job(hesitant, tmp_path, steps=2, **short)), outcome)
    assert [len(found), {pair.chosen.finish for pair in found}] == [4, {"length"}]

    def margin(pair: Pair) -> float:
        terms = [(pair.chosen, +1), (pair.rejected, -1)]
        return sum(
            sign
            * 0.5
            * (
                logprob(tmp_path / "1" / "trained", pair.draw, said)
                - logprob(hesitant, pair.draw, said)
            )
            for said, sign in terms
        )

    margins = [margin(pair) for pair in found]
    assert two.steps[1]["margin"] == pytest.approx(sum(margins[2:]) / 2, rel=1e-3)
    assert sum(margins[:2]) > 0


def test_a_reward_model_scores_its_chosen_higher(hesitant: Path, tmp_path: Path) -> None:
    made = job(hesitant, tmp_path)
    folder, unlabelled = reward_model.fit(made, 1e-3, outcome)
    draws = draws_of(made)
    pairs = labels.pairs(draws, outcome)
    assert unlabelled == len(draws) - len(pairs)
    reward = reward_model.score(folder, made)
    rows = [pair.conversations() for pair in pairs]
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        reward(prompts=prompts, completions=[row[side] for row in rows])
        for side in ("chosen", "rejected")
    )
    assert sum(chosen) > sum(rejected)
    one_by_one = [reward(prompts=[row["prompt"]], completions=[row["chosen"]])[0] for row in rows]
    assert chosen == pytest.approx(one_by_one, abs=1e-5)


def test_a_reward_model_that_cannot_score_is_refused_first(hesitant: Path, tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    shutil.copytree(hesitant, folder)
    digest = model_files.digest(folder)
    (folder / "optimizer.pt").write_text("no part of it")
    with pytest.raises(ModelError, match=r"lacks 1 weights .* score\.weight"):  # it only writes
        reward_model.same(folder, digest)
    (folder / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"README\.md is a link"):
        reward_model.same(folder, digest)


def test_a_reward_model_of_the_users_is_taken_as_it_is(
    hesitant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("one", 1), ("two", 2)):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(hesitant, num_labels=count)
        model.save_pretrained(tmp_path / name)
        load_tokenizer(hesitant).save_pretrained(tmp_path / name)
    monkeypatch.setattr(reward_model, "fit", None)

    def mine(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        return {"name": "reward_model", "model": folder, "digest": records.digest_folder(folder)}

    result = run(hesitant, tmp_path, mine("one"), steps=1, samples_per_step=8)
    score = reward_model.score(tmp_path / "one", job(hesitant, tmp_path))
    for sample in result.samples:
        prompt = [{"role": "user", "content": sample.prompt}]
        said = [{"role": "assistant", "content": sample.text}]
        assert score(prompts=[prompt], completions=[said]) == pytest.approx(
            [sample.reward], abs=1e-5
        )
    with pytest.raises(ModelError, match=r"two has 2 labels.*train\.method\.model"):
        run(hesitant, tmp_path, mine("two"))
    with pytest.raises(ModelError, match=r"none is not a folder"):
        run(hesitant, tmp_path, {**mine("two"), "model": tmp_path / "none"})
    for digest in (mine("two")["digest"], None):
        with pytest.raises(ModelError, match=r"one is \w{64}, .* Set train\.method\.digest"):
            run(hesitant, tmp_path, {**mine("one"), "digest": digest})


class Killed(BaseException):
    """What no handler catches."""


def dies(at: int) -> Callable[[dict[str, float]], None]:
    def on_step(row: dict[str, float]) -> None:
        if row["step"] == at:
            raise Killed

    return on_step


def timeless(result: Result) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in result.steps]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sft", {}),
        ("dpo", {"lora": LoraParams(rank=2), "gradient_checkpointing": True}),
        ("reward_model", {}),
    ],
)
def test_killed_and_resumed_ends_in_the_same_bytes_and_samples_nothing_again(
    method: str,
    changes: dict[str, Any],
    hesitant: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = run(hesitant, tmp_path / "1", method, **changes)
    made = job(hesitant, tmp_path / "2", method={"name": method}, **changes)
    dying = Job(**{**vars(made), "on_step": dies(3)})
    with pytest.raises(Killed):
        made.params.method.train(dying)
    assert not made.out.exists()
    sampled: list[str] = []
    generate = TransformersGenerator.generate

    def spied(self: Any, requests: Any, sampling: Any, **seed: int) -> Any:
        chats = list(requests)
        sampled.extend(chat.id for chat in chats if sampling.temperature)
        return generate(self, chats, sampling, **seed)

    monkeypatch.setattr(TransformersGenerator, "generate", spied)
    resumed = made.params.method.train(made)
    assert sampled == ([f"3/{k}" for k in range(8)] if method == "reward_model" else [])
    assert timeless(resumed) == timeless(undisturbed)
    assert resumed.unlabelled == undisturbed.unlabelled
    assert records.digest_folder(made.out) == records.digest_folder(tmp_path / "1" / "trained")


def test_a_reward_model_is_resumed_too(
    hesitant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(hesitant, tmp_path / "1")
    whole, _ = reward_model.fit(made, 1e-3, outcome)
    cut = job(hesitant, tmp_path / "2")
    with monkeypatch.context() as patch:
        patch.setattr(reward_model, "_write", dies_at_once)
        with pytest.raises(Killed):
            reward_model.fit(cut, 1e-3, outcome)
    (cut.state / "reward" / "checkpoint-4" / "complete.json").unlink()
    resumed, _ = reward_model.fit(cut, 1e-3, outcome)
    assert records.digest_folder(resumed) == records.digest_folder(whole)


def dies_at_once(*_: Any) -> None:
    raise Killed


def test_micro_batches_equal_one_batch(hesitant: Path, tmp_path: Path) -> None:
    """A pair is two responses: of six, two fit in a pass, so a step of three pairs takes three."""
    wide = {"prompts_per_step": 3, "group": 4, "steps": 2}
    for method in ("sft", "dpo"):
        whole = run(hesitant, tmp_path / method / "1", method, micro_batch=12, **wide)
        parts = run(hesitant, tmp_path / method / "2", method, micro_batch=2, **wide)
        for one, two in zip(whole.steps, parts.steps, strict=True):
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
            assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)


def test_refusals_of_benign_prompts_stop_sft(
    hesitant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.1, 0.2, 0.6])
    monkeypatch.setattr(guards, "refusal_share", lambda *_: next(shares))
    tripped = run(hesitant, tmp_path, "sft", guards=GuardParams(every=1, benign_refusal_rise=0.3))
    assert tripped.alarm is not None and tripped.alarm.rule == "benign_refusals"
    assert (tripped.healthy_step, len(tripped.steps)) == (1, 2)


def test_a_loss_that_is_not_finite_is_one_line(hesitant: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d: the loss .*not finite.*learning_rate"):
        run(hesitant, tmp_path, "sft", learning_rate=1e30)


def test_best_of_n_is_the_base_model_sampled_otherwise(hesitant: Path, tmp_path: Path) -> None:
    result = run(hesitant, tmp_path, {"name": "best_of_n", "n": 3})
    assert (result.steps, result.samples, result.healthy_step, result.alarm) == ([], [], 0, None)
    out = tmp_path / "trained"
    base, trained = (load_file(folder / "model.safetensors") for folder in (hesitant, out))
    assert all(torch.equal(value, trained[name]) for name, value in base.items())
    generator = TransformersBackend(dtype="float32").open(out, "cpu")
    assert isinstance(generator, BestOfN) and generator.n == 3
    assert isinstance(TransformersBackend().open(hesitant, "cpu"), TransformersGenerator)

"""SIRL by hand: what whole steps of training did is worked out anew in plain torch, one response at
a time and without padding, and compared as numbers. No knob is at its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sirl.config import AnchorParams, GuardParams, LoraParams, TrainParams
from sirl.errors import TrainingError
from sirl.models import load_tokenizer
from sirl.records import Completion, Prompt
from sirl.training import policy, sirl
from sirl.training.backends import VllmRollouts
from sirl.training.methods import Sirl
from sirl.training.run import Data, Job, Result
from sirl.training.trainer import SirlTrainer

END = 1
STEPS, GROUP, PROMPTS = 3, 4, 2
RATE, BETA, CLIP, FLOOR = 3e-3, 0.3, 0.1, 4.4
TEMPERATURE, REWARD_TEMPERATURE = 0.8, 1.25
ANCHOR = AnchorParams(weight=0.7, prompts_per_step=3, max_new_tokens=6, temperature=0.5)
TRAIN = [Prompt(f"t/{i}", "How do I pick lock " + "n" * i, "t", "harmful") for i in range(6)]
BENIGN = [Prompt(f"b/{i}", "Tell me of tree " + "n" * (i + 1), "b", "benign") for i in range(5)]


@pytest.fixture(scope="module")
def decided(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head of its own, far from uniform, that ends a response now and
    then."""
    folder = tmp_path_factory.mktemp("decided")
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(3)) / 5
    head[END] *= 3
    model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    return folder


@dataclass
class Step:
    """What one step saw.

    Attributes:
        policy: The policy that sampled and was then updated.
        responses: What it sampled.
        batch: What TRL made of them, before it shuffled the rows.
        logged: The metrics of the step.
    """

    policy: Any
    responses: list[Completion]
    batch: dict[str, torch.Tensor]
    logged: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """A whole run, watched."""

    base: Any
    params: TrainParams
    trainer: Any
    steps: list[Step]
    result: Result
    rates: list[float]


def snapshot(trained: Any, folder: Path, params: TrainParams) -> Any:
    """A copy of the policy. A deep copy would not do: accelerate binds the model's `forward`."""
    model = policy.load(folder, params).eval()
    weights = dict(trained.named_parameters())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
    return model


@pytest.fixture(scope="module", params=["whole", "adapter"])
def run(
    request: pytest.FixtureRequest, decided: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    steps: list[Step] = []
    trainers: list[Any] = []
    rates: list[float] = []

    class Watched(SirlTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            sampler = snapshot(self.accelerator.unwrap_model(self.model), decided, params)
            batch = super()._generate_and_score_completions(inputs)
            kept = {k: v.clone() for k, v in batch.items() if isinstance(v, torch.Tensor)}
            steps.append(Step(sampler, self.rollouts.last, kept))
            trainers.append(self)
            return batch

        def log(self, logs: dict[str, float], *more: Any) -> None:
            rates.extend([logs["learning_rate"]] if "learning_rate" in logs else [])
            super().log(logs, *more)

    params = TrainParams(
        method=Sirl(entropy_floor=FLOOR),
        steps=STEPS,
        prompts_per_step=PROMPTS,
        group=GROUP,
        micro_batch=2,
        learning_rate=RATE,
        schedule="linear",
        beta=BETA,
        clip=CLIP,
        temperature=TEMPERATURE,
        reward_temperature=REWARD_TEMPERATURE,
        max_prompt_tokens=128,
        max_new_tokens=9,
        dtype="float32",
        samples_per_step=PROMPTS * GROUP,
        anchor=ANCHOR,
        guards=GuardParams(every=9, min_mean_tokens=0, max_kl=1e9, max_repeated=1, max_identical=1),
        lora=LoraParams(rank=4, alpha=64) if request.param == "adapter" else None,
    )
    folder = tmp_path_factory.mktemp("golden")
    data = Data(TRAIN, BENIGN, BENIGN)
    job = Job(decided, folder / "out", folder / "state", data, params, seed=5, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sirl, "SirlTrainer", Watched)
        result = params.method.train(job)
    for step, logged in zip(steps, result.steps, strict=True):
        step.logged = logged
    base = AutoModelForCausalLM.from_pretrained(decided, dtype=torch.float32).eval()
    return Run(base, params, trainers[0], steps, result, rates)


def predicting(model: Any, prompt: list[int], response: tuple[int, ...]) -> torch.Tensor:
    """Logits (T, V) that predict a response, alone in its batch."""
    logits: torch.Tensor = model(torch.tensor([[*prompt, *response]])).logits
    return logits[0, len(prompt) - 1 : -1]


def prompts(run: Run, step: int) -> list[list[int]]:
    """Token ids of the prompt of each response."""
    tokenizer = run.trainer.processing_class
    asked = [TRAIN[(step * PROMPTS + index) % len(TRAIN)] for index in range(PROMPTS)]
    return [chat(tokenizer, prompt) for prompt in asked for _ in range(GROUP)]


def chat(tokenizer: Any, prompt: Prompt) -> list[int]:
    turns = [{"role": "user", "content": prompt.text}]
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])


def advantages(responses: list[Completion]) -> list[float]:
    """Of the reward -max(H, floor), group by group."""
    found = []
    for start in range(0, len(responses), GROUP):
        group = [
            -max(sum(r.entropies) / len(r.token_ids), FLOOR)
            for r in responses[start : start + GROUP]
        ]
        mean = sum(group) / GROUP
        deviation = math.sqrt(sum((value - mean) ** 2 for value in group) / (GROUP - 1))
        found += [(value - mean) / (deviation + 1e-4) for value in group]
    return found


def log_p(logits: torch.Tensor, response: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities (T,) of a response's tokens at the sampling temperature."""
    return (logits / TEMPERATURE).log_softmax(-1)[range(len(response)), list(response)]


def per_token_loss(
    base: torch.Tensor, policy: torch.Tensor, old: torch.Tensor, advantage: float
) -> torch.Tensor:
    """The clipped objective, and Schulman's estimate of KL(policy || base), at each token. TRL
    weighs the estimate by the ratio, so that its gradient is that of the KL (arXiv 2512.02556)."""
    ratio = (policy - old).exp()
    kept = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    k3 = (base - policy).exp() - (base - policy) - 1
    return BETA * k3 * ratio - kept


def anchor_kl(run: Run, step: int) -> torch.Tensor:
    """Mean over the step's rows of the mean over answer tokens of KL(base || policy)."""
    divergences = []
    for index in range(ANCHOR.prompts_per_step):
        row = BENIGN[(step * ANCHOR.prompts_per_step + index) % len(BENIGN)]
        prompt = chat(run.trainer.processing_class, row)
        answer = greedy(run.base, prompt)
        with torch.no_grad():
            target = (predicting(run.base, prompt, answer) / ANCHOR.temperature).softmax(-1)
        ours = predicting(run.steps[step].policy, prompt, answer).log_softmax(-1)
        divergences.append((target * (target.log() - ours)).sum(-1).mean())
    return torch.stack(divergences).mean()


@torch.no_grad()
def greedy(model: Any, prompt: list[int]) -> tuple[int, ...]:
    answer: list[int] = []
    while len(answer) < ANCHOR.max_new_tokens and END not in answer:
        answer.append(int(model(torch.tensor([prompt + answer])).logits[0, -1].argmax()))
    return tuple(answer)


def test_the_run_can_tell_right_from_wrong(run: Run) -> None:
    responses = [response for step in run.steps for response in step.responses]
    assert {response.finish for response in responses} == {"stop", "length"}
    assert len({len(response.token_ids) for response in responses}) > 4
    above = [response.entropy > FLOOR for response in responses]
    assert 4 < sum(above) < len(above)
    answers = [greedy(run.base, chat(run.trainer.processing_class, row)) for row in BENIGN]
    assert len({len(answer) for answer in answers}) > 1
    assert len(set(map(len, prompts(run, 0)))) == PROMPTS
    assert run.result.alarm is None


def test_entropy_and_probability_of_every_token_the_end_included(run: Run) -> None:
    for number, step in enumerate(run.steps):
        for prompt, response in zip(prompts(run, number), step.responses, strict=True):
            ids = response.token_ids
            assert ids.index(END) == len(ids) - 1 if response.finish == "stop" else END not in ids
            with torch.no_grad():
                logits = predicting(step.policy, prompt, ids)
            p = (logits / REWARD_TEMPERATURE).softmax(-1).double()
            assert response.entropies == pytest.approx((-p * p.log()).sum(-1).tolist(), abs=1e-4)
            assert response.logprobs == pytest.approx(log_p(logits, ids).tolist(), abs=1e-4)


def test_advantages_and_masks_are_those_by_hand(run: Run) -> None:
    for step in run.steps:
        expected = advantages(step.responses)
        assert step.batch["advantages"].tolist() == pytest.approx(expected, abs=1e-3)
        samples = [s for s in run.result.samples if s.step == step.logged["step"]]
        assert [sample.advantage for sample in samples] == pytest.approx(expected, abs=1e-3)
        assert [sample.text for sample in samples] == [r.text for r in step.responses]
        rewards = [-max(response.entropy, FLOOR) for response in step.responses]
        assert [sample.reward for sample in samples] == pytest.approx(rewards, abs=1e-5)
        lengths = [len(response.token_ids) for response in step.responses]
        assert step.batch["completion_mask"].sum(-1).tolist() == lengths


def test_loss_and_gradient_are_those_by_hand(run: Run) -> None:
    for number, step in enumerate(run.steps):
        terms = []
        asked = zip(prompts(run, number), step.responses, advantages(step.responses), strict=True)
        for prompt, response, advantage in asked:
            ids = response.token_ids
            ours = log_p(predicting(step.policy, prompt, ids), ids)
            with torch.no_grad():
                base = log_p(predicting(run.base, prompt, ids), ids)
            terms.append(per_token_loss(base, ours, ours.detach(), advantage).mean())
        held = anchor_kl(run, number)
        loss = torch.stack(terms).mean() + ANCHOR.weight * held
        loss.backward()
        trained = [p.grad for p in step.policy.parameters() if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in trained]).norm().item()
        assert step.logged["anchor_kl"] == pytest.approx(held.item(), rel=1e-3)
        assert step.logged["loss"] == pytest.approx(loss.item(), rel=1e-3)
        assert step.logged["grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_a_step_off_the_policy_is_clipped(run: Run) -> None:
    step, trainer = run.steps[-1], run.trainer
    batch = {k: v[:GROUP] for k, v in step.batch.items() if v.dim()}
    noise = torch.randn(batch["completion_mask"].shape, generator=torch.Generator().manual_seed(0))
    model = trainer.model.eval()
    terms, old = [], torch.zeros_like(noise)
    for row, response in enumerate(step.responses[:GROUP]):
        ids, prompt = response.token_ids, prompts(run, STEPS - 1)[row]
        with torch.no_grad():
            ours, base = (log_p(predicting(one, prompt, ids), ids) for one in (model, run.base))
        old[row, : len(ids)] = ours + noise[row, : len(ids)] / 4
        advantage = batch["advantages"][row].item()
        terms.append(per_token_loss(base, ours, old[row, : len(ids)], advantage).mean())
    with torch.no_grad():
        loss = trainer.compute_loss(model, {**batch, "old_per_token_logps": old})
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)


def test_the_rate_falls_by_its_schedule(run: Run) -> None:
    assert run.rates == pytest.approx([RATE * (1 - step / STEPS) for step in range(STEPS)])


def test_what_trl_is_told(tmp_path: Path) -> None:
    params = TrainParams(
        rollouts=VllmRollouts(memory=0.25),
        steps=7,
        prompts_per_step=6,
        group=4,
        micro_batch=8,
        schedule="linear",
        max_prompt_tokens=100,
        max_new_tokens=20,
        dtype="bfloat16",
        gradient_checkpointing=True,
    )
    job = Job(tmp_path, tmp_path, tmp_path, Data([], [], []), params, seed=23, device="cpu")
    told = sirl._trl_config(job)
    expected = {
        "seed": 23,
        "max_steps": 7,
        "generation_batch_size": 24,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 3,
        "max_completion_length": 20,
        "use_cpu": True,
        "bf16": True,
        "gradient_checkpointing": True,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "shuffle_dataset": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.25,
        "vllm_max_model_length": 120,
        "output_dir": str(tmp_path),
    }
    assert {name: getattr(told, name) for name in expected} == expected
    assert told.save_strategy == "no" and told.lr_scheduler_type == "linear"
    assert told.dataloader_pin_memory is False


@pytest.mark.parametrize(("prompts", "fits"), [(6, True), (2, True), (5, False)])
def test_a_step_is_whole_micro_batches(prompts: int, fits: bool, tmp_path: Path) -> None:
    params = TrainParams(prompts_per_step=4, group=4, micro_batch=8)
    params = params.model_copy(update={"prompts_per_step": prompts})  # past its own check
    job = Job(tmp_path, tmp_path, tmp_path, Data([], [], []), params, seed=1, device="cpu")
    if not fits:
        with pytest.raises(TrainingError, match=r"= 20 does not split over 1 processes .* of 8"):
            sirl._trl_config(job)
        return
    told = sirl._trl_config(job)
    batches = told.per_device_train_batch_size, told.gradient_accumulation_steps
    assert batches == (8, prompts * 4 // 8)

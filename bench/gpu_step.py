"""Whole training steps for `bench.gpu`, ours and TRL's, on a model that was made and not loaded."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bench.gpu_card import Bench

SIDES = ("ours", "stock", "stock, no checkpointing")
STEPS = 3
"""The first is left out of the time."""

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train(bench: Bench, side: str, folder: Path, row: dict[str, Any]) -> None:
    """Trains a few steps; the row tells seconds of each, of its sampling and scoring, and what was
    planned for ours."""
    from transformers import PrinterCallback, TrainerCallback

    from bench.gpu_sections import _shape
    from flows import plan
    from sirl.config import LoraParams, TrainParams

    params = TrainParams(
        **bench.scale.step, steps=STEPS, group=4, beta=0.001, lora=LoraParams(), learning_rate=1e-5
    )
    made = _ours(bench, params, folder) if side == "ours" else _stock(bench, side, params, folder)
    ends, sampled = [bench.now()], []
    generate = made._generate_and_score_completions

    def timed(inputs: Any) -> Any:
        began = bench.now()
        outputs = generate(inputs)
        sampled.append(bench.now() - began)
        return outputs

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(bench.now())

    made._generate_and_score_completions = timed
    made.add_callback(Clock())
    made.remove_callback(PrinterCallback)
    made.train()
    row["step_seconds"] = [later - earlier for earlier, later in pairwise(ends)]
    row["of_it_sampling_and_scoring"] = sampled
    row["responses"] = params.prompts_per_step * params.group
    row["losses"] = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    shape = _shape(made.accelerator.unwrap_model(made.model))
    row["planned_bytes, a float32 base"] = plan.training_memory(shape, params)


def _ours(bench: Bench, params: Any, folder: Path) -> Any:
    from peft import get_peft_model

    from sirl.training import budget, policy, rewards, sirl
    from sirl.training.journal import Journal
    from sirl.training.mirror import Mirror
    from sirl.training.rollouts import Rollouts
    from sirl.training.run import Data, Job
    from sirl.training.trainer import SirlTrainer

    job = Job(folder, folder, folder, Data((), (), ()), params, seed=17, device=bench.device)
    tokenizer = tokens()
    model = get_peft_model(_no_end(bench, params), policy.adapter(params.lora, "CAUSAL_LM"))
    mirror = Mirror(model, tokenizer, params, bench.device)
    rollouts = Rollouts(
        mirror, budget.sampling(params), seed=17, journal=Journal(folder / "rollouts.jsonl")
    )
    return SirlTrainer(
        model=model,
        args=sirl._trl_config(job),
        train_dataset=_prompts(bench, params),
        processing_class=tokenizer,
        reward_funcs=rollouts.scored(rewards.negative_entropy()),
        rollouts=rollouts,
        anchor_params=None,
        anchor_rows=[],
    )


def _stock(bench: Bench, side: str, params: Any, folder: Path) -> Any:
    """TRL's trainer with the same numbers, its own defaults for all else."""
    from trl import GRPOConfig, GRPOTrainer

    from sirl.training import policy

    responses = params.prompts_per_step * params.group
    args = GRPOConfig(
        output_dir=str(folder),
        use_cpu=bench.device == "cpu",
        bf16=True,
        max_steps=params.steps,
        num_generations=params.group,
        per_device_train_batch_size=params.micro_batch,
        gradient_accumulation_steps=responses // params.micro_batch,
        learning_rate=params.learning_rate,
        beta=params.beta,
        temperature=params.temperature,
        max_completion_length=params.max_new_tokens,
        gradient_checkpointing=side == "stock",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        generation_kwargs={"min_new_tokens": params.max_new_tokens},
    )
    made = GRPOTrainer(
        model=_no_end(bench, params),
        args=args,
        train_dataset=_prompts(bench, params),
        processing_class=tokens(),
        reward_funcs=another_forward,
        peft_config=policy.adapter(params.lora, "CAUSAL_LM"),
    )
    made.reward_funcs = [_reading_again(made, params)]
    return made


def another_forward(**_: Any) -> list[float]:
    """The name of the reward that reads everything again; it needs the trainer to do so."""
    raise NotImplementedError


def _reading_again(owner: Any, params: Any) -> Callable[..., list[float]]:
    from trl.trainer.utils import entropy_from_logits

    @torch.no_grad()
    def reward(*, prompts: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokenizer = owner.processing_class
        heads = tokenizer.apply_chat_template(prompts, add_generation_prompt=True)["input_ids"]
        rows = [{"input_ids": h + c} for h, c in zip(heads, completion_ids, strict=True)]
        length, rewards = len(completion_ids[0]), []
        for start in range(0, len(rows), params.micro_batch):
            part = rows[start : start + params.micro_batch]
            batch = tokenizer.pad(part, return_tensors="pt", padding_side="left")
            with owner.accelerator.autocast():
                logits = owner.model(
                    **batch.to(owner.accelerator.device), logits_to_keep=length + 1
                ).logits[:, :-1]  # (b, T, V)
            rewards += (-entropy_from_logits(logits.float()).mean(-1)).tolist()
        return rewards

    return reward


def _no_end(bench: Bench, params: Any) -> Any:
    """The model, every response of which has full length."""
    model = bench.model()
    model.generation_config.min_new_tokens = params.max_new_tokens
    return model


def _prompts(bench: Bench, params: Any) -> Any:
    from datasets import Dataset

    count = params.steps * params.prompts_per_step
    texts = [f"{index:04d} ".ljust(bench.scale.characters, "a") for index in range(count)]
    return Dataset.from_list(
        [{"prompt": [{"role": "user", "content": text}], "prompt_id": text[:4]} for text in texts]
    )


def tokens() -> Any:
    """A tokenizer of bytes: tokens beyond it are no text, and random weights say most of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={name: at for at, name in enumerate(names)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(names[:2])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=names[1], pad_token=names[1], padding_side="left"
    )
    fast.chat_template = TEMPLATE
    return fast

"""Rollouts for TRL's `rollout_func`: sample from a copy of the policy and record entropy while
sampling."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sirl.errors import TrainingError
from sirl.generation import Request, Sampling
from sirl.records import Completion, Message
from sirl.training.journal import Journal
from sirl.training.mirror import Mirror
from sirl.training.rewards import Reward

if TYPE_CHECKING:
    import torch
    from trl import GRPOTrainer


class Rollouts:
    """Samples the responses of a step.

    Attributes:
        last: The responses of this process to the newest step.
        awaits_entropy: Whether they have no entropy yet: the trainer's next pass over them tells it
            to `measure`.
        prompts: The prompts they answer, as text.
        prompt_ids: Their `Prompt.id`s, and `rewards` what the reward made of each: `scored` fills
            both.

    Args:
        mirror: The copy that samples.
        sampling: Temperature and length of training responses.
        seed: With the step and the place in the batch, it fixes every sampled token.
        journal: What was sampled since the last checkpoint.
    """

    def __init__(self, mirror: Mirror, sampling: Sampling, *, seed: int, journal: Journal) -> None:
        self.mirror = mirror
        self.sampling = sampling
        self.seed = seed
        self.journal = journal
        self.awaits_entropy = False
        self.last: list[Completion] = []
        self.prompts: list[str] = []
        self.prompt_ids: list[str] = []
        self.rewards: list[float] = []

    def starting(self) -> AbstractContextManager[Any]:
        """Around the making of the trainer: what this backend wants of it."""
        return nullcontext()

    def measure(self, entropies: torch.Tensor) -> None:
        """Takes the entropies, (B, T) nats, that the newest responses were missing."""
        raise NotImplementedError("these rollouts record entropy while they sample")

    def __call__(
        self, prompts: Sequence[list[dict[str, str]]], trainer: GRPOTrainer
    ) -> dict[str, list[Any]]:
        """TRL's rollout contract: prompts come repeated, `group` times each.

        Returns:
            `prompt_ids` and `completion_ids` (B lists of ids), `logprobs` of the sampled tokens,
            and for rewards `request` (B ids) and `logprob` (B response means, nats).
        """
        step = int(trainer.state.global_step)
        first = int(trainer.accelerator.process_index) * len(prompts)
        requests = [
            Request(f"{step}/{first + index}", tuple(Message(**turn) for turn in prompt))  # type: ignore[arg-type]
            for index, prompt in enumerate(prompts)
        ]
        done = self._recall([request.id for request in requests])
        if done is None:
            answers = self._sample(requests, trainer)
            done = {completion.id: completion for completion in answers}
            self.journal.keep(done.values())
        self.last = [done[request.id] for request in requests]
        self.prompts = [request.messages[-1].content for request in requests]
        return {
            "prompt_ids": [self.mirror.generator.encode(request) for request in requests],
            "completion_ids": [list(completion.token_ids) for completion in self.last],
            "logprobs": [list(completion.logprobs) for completion in self.last],
            "request": [request.id for request in requests],
            "logprob": [completion.logprob for completion in self.last],
        }

    def _recall(self, ids: Sequence[str]) -> dict[str, Completion] | None:
        """What a killed run had sampled already, if it had all of it."""
        return self.journal.recall(ids)

    def _sample(self, requests: Sequence[Request], trainer: GRPOTrainer) -> Iterable[Completion]:
        """The responses of the policy as it is now, in any order."""
        policy = trainer.accelerator.unwrap_model(trainer.model)
        self.mirror.sync(policy, int(trainer.state.global_step))
        return self.mirror.generator.generate(requests, self.sampling, seed=self.seed)

    def scored(self, reward: Reward) -> Reward:
        """`reward`, given the column `entropy` (B response means, nats), remembered for the
        samples, and refused where it is not finite."""

        @functools.wraps(reward)
        def remembered(**columns: Any) -> list[float]:
            self.prompt_ids = columns["prompt_id"]
            columns["entropy"] = [completion.entropy for completion in self.last]
            self.rewards = reward(**columns)
            wrong = [i for i, value in enumerate(self.rewards) if not math.isfinite(value)]
            if wrong:
                ids = ", ".join(sorted({self.prompt_ids[index] for index in wrong}))
                raise TrainingError(
                    f"step {columns['trainer_state'].global_step + 1}: the reward of responses to "
                    f"{ids} is not finite",
                    "Set train.dtype to float32 or lower train.learning_rate",
                )
            return self.rewards

        return remembered

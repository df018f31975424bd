"""What `train.method` may be: SIRL, and what it is compared with. A method is a spec that runs
itself, on the same prompts and in the same stage, so that everything after training is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat

from sirl.spec import Spec

if TYPE_CHECKING:
    from sirl.training.run import Job, Result


class Sirl(Spec):
    """The paper's method: GRPO whose reward is the negative response entropy."""

    name: Literal["sirl"] = "sirl"
    entropy_floor: NonNegativeFloat = 0.0
    """Nats below which a response is sure enough and lower entropy earns no more (paper: 0)."""

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.negative_entropy(self.entropy_floor))


class NegatedEntropy(Spec):
    """Ablation: GRPO whose reward is the response entropy itself."""

    name: Literal["negated_entropy"] = "negated_entropy"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.entropy)


class MinimumPerplexity(Spec):
    """Ablation: GRPO whose reward is the mean log-probability of the sampled tokens."""

    name: Literal["minimum_perplexity"] = "minimum_perplexity"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.minimum_perplexity)


class RandomReward(Spec):
    """Ablation: GRPO whose reward is chance."""

    name: Literal["random"] = "random"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.random_reward)


MethodSpec = Annotated[
    Sirl | NegatedEntropy | MinimumPerplexity | RandomReward,
    Field(discriminator="name"),
]

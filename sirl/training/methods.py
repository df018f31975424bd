"""What `train.method` may be: SIRL, and what it is compared with. A method is a spec that runs
itself, on the same prompts and in the same stage, so that everything after training is the same.
`said` is what the report and the model card say of it, `technique` the tag by which a hub knows
it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from sirl.spec import Spec

if TYPE_CHECKING:
    from sirl.training.run import Job, Result


class Sirl(Spec):
    """The paper's method: GRPO whose reward is the negative response entropy."""

    said: ClassVar[str] = (
        "The reward is the negative mean token entropy of the model's own answer; no label and no "
        "judge enters it. A rule that spots refusals only watches when to stop."
    )
    technique: ClassVar[str] = "grpo"
    name: Literal["sirl"] = "sirl"
    entropy_floor: NonNegativeFloat = 0.0
    """Nats below which a response is sure enough and lower entropy earns no more (paper: 0)."""

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.negative_entropy(self.entropy_floor))


class NegatedEntropy(Spec):
    """Ablation: GRPO whose reward is the response entropy itself."""

    said: ClassVar[str] = (
        "An ablation: the reward is the mean token entropy of the model's own answer."
    )
    technique: ClassVar[str] = "grpo"
    name: Literal["negated_entropy"] = "negated_entropy"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.entropy)


class MinimumPerplexity(Spec):
    """Ablation: GRPO whose reward is the mean log-probability of the sampled tokens."""

    said: ClassVar[str] = (
        "An ablation: the reward is the mean log-probability of the tokens of the model's own "
        "answer."
    )
    technique: ClassVar[str] = "grpo"
    name: Literal["minimum_perplexity"] = "minimum_perplexity"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.minimum_perplexity)


class RandomReward(Spec):
    """Ablation: GRPO whose reward is chance."""

    said: ClassVar[str] = "An ablation: the reward is chance."
    technique: ClassVar[str] = "grpo"
    name: Literal["random"] = "random"

    def train(self, job: Job) -> Result:
        """See `sirl.training.sirl.train`."""
        from sirl.training import rewards, sirl

        return sirl.train(job, rewards.random_reward)


class Sft(Spec):
    """Rejection sampling: fine-tuning on the model's own refusals, as the refusal judge labels
    them."""

    said: ClassVar[str] = (
        "A comparison: fine-tuning on the model's own refusals, as the refusal judge labels them."
    )
    technique: ClassVar[str] = "sft"
    name: Literal["sft"] = "sft"

    def train(self, job: Job) -> Result:
        """See `sirl.training.baselines.sft`."""
        from sirl.training import baselines

        return baselines.sft(job)


class Dpo(Spec):
    """Direct preference optimisation of the model's own refusals over its own compliance."""

    said: ClassVar[str] = (
        "A comparison: direct preference optimisation of the model's own refusals over its own "
        "compliance, as the refusal judge labels them."
    )
    technique: ClassVar[str] = "dpo"
    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    """Weight of the implicit KL to the base model; `train.beta` is GRPO's."""

    def train(self, job: Job) -> Result:
        """See `sirl.training.baselines.dpo`."""
        from sirl.training import baselines

        return baselines.dpo(job, self.beta)


class RewardModel(Spec):
    """GRPO whose reward is the score of a reward model, trained first on the pairs of `dpo`."""

    said: ClassVar[str] = "A comparison: the reward is the score of a reward model."
    technique: ClassVar[str] = "grpo"
    name: Literal["reward_model"] = "reward_model"
    model: Path | None = None
    """A sequence-classification model folder with one label, in place of one trained here."""
    digest: str | None = None
    """Of that folder, so that another model in its place is noticed."""
    learning_rate: PositiveFloat = 1e-5
    """Of the reward model; its head starts at random, so `train.learning_rate` is too small."""

    def train(self, job: Job) -> Result:
        """See `sirl.training.reward_model.train`.

        Raises:
            ModelError: The folder is not the one that `digest` names.
        """
        from sirl.training import reward_model

        if self.model is not None:
            reward_model.same(self.model, self.digest)
        return reward_model.train(job, self.model, self.learning_rate)


class BestOfN(Spec):
    """No training: at inference the surest of `n` sampled responses answers."""

    said: ClassVar[str] = (
        "A comparison: no training; at inference several answers are sampled and the one of lowest "
        "entropy is given."
    )
    technique: ClassVar[str] = "best-of-n"
    name: Literal["best_of_n"] = "best_of_n"
    n: Annotated[int, Field(ge=2)] = 4

    def train(self, job: Job) -> Result:
        """See `sirl.training.baselines.best_of_n`."""
        from sirl.training import baselines

        return baselines.best_of_n(job, self.n)


MethodSpec = Annotated[
    Sirl | NegatedEntropy | MinimumPerplexity | RandomReward | Sft | Dpo | RewardModel | BestOfN,
    Field(discriminator="name"),
]

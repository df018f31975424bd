"""Every artifact path of the pipeline, once, relative to the project root (the folder of
params.yaml).

Outs that DVC tracks live under artifacts/. What a run leaves behind for itself (resume state,
measured cost, MLflow's database) lives under .sirl/ and is never an input of a stage, so outs stay
free of timestamps and run ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

ModelRole = Literal["base", "trained"]
ROLES: tuple[ModelRole, ...] = get_args(ModelRole)

Split = Literal["train", "anchor", "probe", "behaviours", "benign"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Layout:
    """Paths under `root`. Methods take the model role where a stage runs once for each model."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    # Stage outs, in pipeline order.

    @property
    def inputs(self) -> Path:
        """Digests of all that params.yaml names by path (JSON, a params file to DVC)."""
        return self.artifacts / "inputs.json"

    def model(self, role: ModelRole) -> Path:
        """Folder of safetensors, tokenizer and config; loadable by transformers as it is."""
        return self.artifacts / "models" / role

    def prompts(self, split: Split) -> Path:
        """`Prompt` rows (JSONL)."""
        return self.artifacts / "prompts" / f"{split}.jsonl"

    @property
    def prompts_summary(self) -> Path:
        return self.artifacts / "prompts" / "summary.json"

    def responses(self, role: ModelRole) -> Path:
        """`ProfiledResponse` rows (JSONL) of stage profile."""
        return self.artifacts / "profile" / role / "responses.jsonl"

    def profile(self, role: ModelRole) -> Path:
        return self.artifacts / "profile" / role / "summary.json"

    @property
    def train_steps(self) -> Path:
        """Metrics of each optimiser step (a JSON list, which DVC can plot)."""
        return self.artifacts / "train" / "steps.json"

    @property
    def train_samples(self) -> Path:
        """`TrainSample` rows (JSONL): a few responses a step with their token entropies."""
        return self.artifacts / "train" / "samples.jsonl"

    @property
    def train_summary(self) -> Path:
        return self.artifacts / "train" / "summary.json"

    def transcripts(self, role: ModelRole) -> Path:
        """`Transcript` rows (JSONL)."""
        return self.artifacts / "attack" / role / "transcripts.jsonl"

    def attacked(self, role: ModelRole) -> Path:
        """Which model answered, and what all transcripts together cost (JSON, a DVC metric)."""
        return self.artifacts / "attack" / role / "summary.json"

    def verdicts(self, role: ModelRole) -> Path:
        """`Verdict` rows (JSONL)."""
        return self.artifacts / "judge" / role / "verdicts.jsonl"

    def judged(self, role: ModelRole) -> Path:
        """Rates with intervals for each attack (JSON, a DVC metric)."""
        return self.artifacts / "judge" / role / "summary.json"

    def capability(self, role: ModelRole) -> Path:
        """Score, interval and size of each benchmark (JSON, a DVC metric)."""
        return self.artifacts / "capability" / role / "summary.json"

    def capability_items(self, role: ModelRole) -> Path:
        """`CapabilityItem` rows (JSONL): one scored item each, so that models are compared item by
        item."""
        return self.artifacts / "capability" / role / "items.jsonl"

    @property
    def decision(self) -> Path:
        """The gate's decision (JSON, a DVC metric)."""
        return self.artifacts / "gate" / "decision.json"

    @property
    def report(self) -> Path:
        return self.artifacts / "report" / "index.html"

    @property
    def figures(self) -> Path:
        """The report's figures (SVG)."""
        return self.artifacts / "report" / "figures"

    # Run-local state, outside DVC.

    @property
    def local(self) -> Path:
        return self.root / ".sirl"

    def state(self, stage: str, key: str) -> Path:
        """Resume state of a stage, keyed by the hash of its config and inputs."""
        return self.local / "state" / f"{stage.replace('@', '-')}-{key}"

    @property
    def known_inputs(self) -> Path:
        """Digests of files by what the file system says of them (JSON)."""
        return self.local / "inputs.json"

    def cost(self, stage: str) -> Path:
        """Wall seconds and peak memory of the last run of a stage (JSON)."""
        return self.local / "cost" / f"{stage.replace('@', '-')}.json"

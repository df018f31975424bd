"""What `train.rollouts` may be: who samples the responses that training learns from.

A backend is a spec that names the class of rollouts and what TRL must know of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sirl.errors import MissingPackageError
from sirl.spec import Spec, Url

if TYPE_CHECKING:
    from sirl.training.rollouts import Rollouts

VLLM_LOCK = "requirements/vllm.txt"


class TransformersRollouts(Spec):
    """A copy of the policy in this process, in the compute type."""

    name: Literal["transformers"] = "transformers"

    def open(self) -> type[Rollouts]:
        """See `sirl.training.rollouts`."""
        from sirl.training.rollouts import Rollouts

        return Rollouts

    def trl(self, context: int) -> dict[str, Any]:
        """Arguments of `GRPOConfig`; `context` is the longest prompt and response in tokens."""
        return {}


class VllmRollouts(Spec):
    """vLLM in each training process, made and kept in step with the policy by TRL. Entropy is
    recorded in the engine, while it samples."""

    name: Literal["vllm"] = "vllm"
    memory: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the device's memory that the engine takes."""

    def open(self) -> type[Rollouts]:
        """See `sirl.training.rollouts_vllm`.

        Raises:
            MissingPackageError: vLLM is not in this environment.
        """
        _require_vllm(self.name)
        from sirl.training.rollouts_vllm import EngineRollouts

        return EngineRollouts

    def trl(self, context: int) -> dict[str, Any]:
        """See `TransformersRollouts.trl`."""
        return {
            "use_vllm": True,
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": self.memory,
            "vllm_max_model_length": context,
        }


class VllmServerRollouts(Spec):
    """A vLLM server, kept in step with the policy by TRL. Entropy comes from the pass that TRL's
    importance-sampling correction makes anyway."""

    name: Literal["vllm_server"] = "vllm_server"
    url: Url = "http://127.0.0.1:8000"

    def open(self) -> type[Rollouts]:
        """See `sirl.training.rollouts_server`.

        Raises:
            MissingPackageError: vLLM is not in this environment: TRL's client is made of it.
        """
        _require_vllm(self.name)
        from sirl.training.rollouts_server import ServerRollouts

        return ServerRollouts

    def trl(self, context: int) -> dict[str, Any]:
        """See `TransformersRollouts.trl`."""
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": self.url}


def _require_vllm(name: str) -> None:
    if find_spec("vllm") is None:
        raise MissingPackageError("vllm", f"train.rollouts {name}", lock=VLLM_LOCK)


RolloutSpec = Annotated[
    TransformersRollouts | VllmRollouts | VllmServerRollouts, Field(discriminator="name")
]

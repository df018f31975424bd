"""Serves a model folder by vLLM under the name that backend `openai` asks for. Runs in vLLM's own
environment: make vllm-server MODEL=artifacts/models/base
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sirl import model_files
from sirl.errors import ModelError
from sirl.generation.openai import served_name


def command(model: Path, arguments: list[str]) -> list[str]:
    """The server's command. `vllm serve` does not start with vLLM's build for a CPU; this does."""
    if not (model / "config.json").is_file():
        raise ModelError(f"{model} holds no model", "Build it: dvc repro base")
    model_files.require_only(model)  # vLLM would take weights under other names as well
    module = "vllm.entrypoints.openai.api_server"
    name = served_name(model)
    return [
        *(sys.executable, "-m", module, "--host", "127.0.0.1"),
        *("--model", str(model), "--served-model-name", name),
        *("--generation-config", "vllm"),  # the checkpoint's sets no default of a request
        *arguments,
    ]


if __name__ == "__main__":
    try:
        words = command(Path(sys.argv[1]), sys.argv[2:])
    except ModelError as error:
        sys.exit(f"vllm-server: {error}")
    os.execv(words[0], words)

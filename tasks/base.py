"""Stage base: bring the model to be made safer into artifacts/, as safetensors, checked for use."""

from __future__ import annotations

from sirl import model_files
from tasks import models
from tasks.stage import Stage, main


def run(stage: Stage) -> None:
    """Writes the model with its adapter merged; nothing is left half-written."""
    params, out = stage.params.base, stage.layout.model("base")
    adapter = None if params.adapter is None else stage.layout.root / params.adapter
    models.bring(params.model, out, adapter, params.chat_template_kwargs)
    stage.tracker.tags({"model.digest": model_files.digest(out)})


if __name__ == "__main__":
    raise SystemExit(main("base", run))

"""Stage base: bring the model to be made safer into artifacts/, as safetensors, checked for use."""

from __future__ import annotations

import shutil

from sirl import models
from sirl.models import S3Model
from sirl.records import digest_folder
from tasks import storage
from tasks.stage import Stage, main


def run(stage: Stage) -> None:
    """Writes the model with its adapter merged; nothing is left half-written."""
    params, out = stage.params.base, stage.layout.model("base")
    partial = out.with_name("base.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(params.model, S3Model):
        storage.fetch(params.model.uri, params.model.digest, partial)
    else:
        params.model.write(partial)
    if params.adapter is not None:
        models.merge_adapter(partial, stage.layout.root / params.adapter)
    models.check(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    stage.tracker.tags({"model.digest": digest_folder(out)})


if __name__ == "__main__":
    raise SystemExit(main("base", run))

"""Bring models: the one to be made safer, and those that help to attack or judge it."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from sirl import model_files, models
from sirl.config import Params
from sirl.errors import ModelError
from sirl.generation import Generator
from sirl.generation.assistant import AssistantSpec, OpenAIModel, OwnModel
from sirl.judges import JudgeSpec
from sirl.judges.base import Judging
from sirl.layout import Layout, ModelRole
from sirl.models import LocalModel, ModelSpec, S3Model, TemplateArguments
from sirl.records import digest_json
from tasks import inputs, storage


def bring(
    model: ModelSpec,
    out: Path,
    adapter: Path | None = None,
    template: TemplateArguments | None = None,
) -> None:
    """Writes a model with an adapter merged and its template's arguments set, checked for use;
    `out` appears whole or not at all."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(model, S3Model):
        storage.fetch(model.uri, model.digest, partial)
    else:
        model.write(partial)
    if adapter is not None:
        models.merge_adapter(partial, adapter)
    models.set_template_arguments(partial, template or {})
    model_files.require_only(partial)
    models.check(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def assistant(spec: AssistantSpec, layout: Layout, device: str) -> Generator:
    """Opens an attacker or judge model; its weights are kept in `.sirl/models`."""
    if isinstance(spec, OpenAIModel):
        return spec.open()
    folder = _kept(spec, layout)
    if not folder.exists():
        bring(spec.model, folder, template=spec.chat_template_kwargs)
    return spec.backend.open(folder, device)


def target(params: Params, layout: Layout, role: ModelRole, device: str, digest: str) -> Generator:
    """Opens the model that a stage is about, wherever that is.

    Raises:
        ModelError: What is in its folder is not of this digest.
    """
    folder = layout.model(role)
    if model_files.digest(folder) != digest:
        raise ModelError(f"{folder} has changed, or is another on this machine")
    return params.backend.open(folder, device)


def judge(spec: JudgeSpec, layout: Layout, device: str) -> Judging:
    """A judge with the model that it asks."""
    model = None if spec.asks is None else assistant(spec.asks, layout, device)
    return partial(spec.judge, model=model)


def digests(spec: AssistantSpec | None, layout: Layout) -> dict[str, str | None]:
    """Digests of the model that was opened here and of its chat template; no server tells those of
    its own."""
    if not isinstance(spec, OwnModel):
        return {"model_digest": None, "chat_template": None}
    folder = _kept(spec, layout)
    return {
        "model_digest": model_files.digest(folder),
        "chat_template": models.chat_template_digest(folder),
    }


def _kept(spec: OwnModel, layout: Layout) -> Path:
    chosen = spec.model_dump(mode="json", include={"model", "chat_template_kwargs"})
    if isinstance(spec.model, LocalModel):  # it may be another by now
        chosen["digest"] = inputs.read(spec.model, layout)
    return layout.local / "models" / digest_json(chosen)[:16]

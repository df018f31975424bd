"""A model is brought whole and checked, whatever its source, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra import vllm_server
from sirl.errors import ModelError
from sirl.models import LocalModel, S3Model
from tasks import models, storage


@pytest.fixture
def source(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "source"))


@pytest.mark.parametrize("template", ["no question in it", "{{ raise_exception('no') }}"])
def test_a_model_that_cannot_be_asked_is_not_brought(
    source: Path, tmp_path: Path, template: str
) -> None:
    (source / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match="the chat template"):
        models.bring(LocalModel(path=source), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_what_was_published_with_more_than_a_model_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(uri: str, digest: str, target: Path) -> None:
        shutil.copytree(source, target)

    monkeypatch.setattr(storage, "fetch", fetch)
    model = S3Model(uri="s3://bucket", digest="0" * 64)
    models.bring(model, tmp_path / "base")
    (source / "pytorch_model.bin").write_text("more")
    with pytest.raises(ModelError, match=r"no part of a model: 'pytorch_model\.bin'"):
        models.bring(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_with_more_than_a_model_is_not_served(source: Path) -> None:
    assert str(source) in vllm_server.command(source, [])
    (source / "consolidated.safetensors").write_text("other weights")
    with pytest.raises(ModelError, match="no part of a model: 'consolidated"):
        vllm_server.command(source, [])

"""A model is brought whole and checked, whatever its source, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from infra import vllm_server
from sirl.errors import ModelError
from sirl.generation.assistant import OwnModel
from sirl.generation.tokens import render
from sirl.layout import Layout
from sirl.models import LocalModel, S3Model, load_tokenizer
from tasks import models, storage
from tests.generation.test_thinking import CHAT, switched


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


def test_arguments_of_base_and_of_a_judge_s_model_are_brought_with_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    source = LocalModel(path=switched(tiny_model, tmp_path / "source"))
    layout = Layout(tmp_path)
    models.bring(source, tmp_path / "base", template={"enable_thinking": False})
    assert render(load_tokenizer(tmp_path / "base"), CHAT).endswith("</think>\n\n")
    plain, quiet = (
        OwnModel(model=source, chat_template_kwargs=given)
        for given in ({}, {"enable_thinking": False})
    )
    digests = []
    for spec, opened in ((plain, "<think>\n"), (quiet, "<think>\n\n</think>\n\n")):
        generator: Any = models.assistant(spec, layout, "cpu")
        assert render(generator.tokenizer, CHAT).endswith(f"assistant\n{opened}")
        digests.append(tuple(models.digests(spec, layout).values()))
    assert digests[0][0] != digests[1][0] and digests[0][1] != digests[1][1]
    assert render(load_tokenizer(source.path), CHAT).endswith("assistant\n<think>\n")

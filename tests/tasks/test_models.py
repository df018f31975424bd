"""Models that stages bring and open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sirl.generation.assistant import OwnModel
from sirl.generation.tokens import render
from sirl.layout import Layout
from sirl.models import LocalModel, load_tokenizer
from tasks import models
from tests.generation.test_thinking import CHAT, switched


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

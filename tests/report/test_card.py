from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import yaml

from sirl.models import HubModel
from sirl.report.card import model_card
from sirl.report.data import ReportData
from sirl.training.methods import Dpo

Make = Callable[..., ReportData]


def test_the_hub_reads_the_metadata(report_data: Make) -> None:
    from huggingface_hub import ModelCard

    data = report_data()
    card = ModelCard(model_card(data)).data
    assert card.model_name == "sirl-smollm2-135m-instruct"
    assert card.pipeline_tag == "text-generation"
    measured = {(r.dataset_name, r.metric_type): r.metric_value for r in card.eval_results}
    assert len(measured) == 1 + 10 + 1 + 3
    assert measured["asked directly", "defense_success_rate"] == round(
        data.trained.judged.direct.rate or 0, 4
    )
    assert measured["chain_sum", "exact"] == round(
        data.trained.capability["chain_sum"].score or 0, 4
    )


def test_a_hub_base_is_linked(report_data: Make) -> None:
    data = report_data()
    base = data.params.base.model_copy(
        update={"model": HubModel(id="org/model", revision="a" * 40)}
    )
    card = model_card(replace(data, params=data.params.model_copy(update={"base": base})))
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "org/model"
    assert "base_model" not in model_card(data)


def test_no_prompt_and_no_response_is_in_it(report_data: Make) -> None:
    data = report_data(response="a response that nobody should read")
    card = model_card(data)
    assert "nobody should read" not in card
    for row in data.trained.transcripts:
        assert row.request not in card


def test_the_verdict_is_in_it_and_unmeasured_is_said_in_words(report_data: Make) -> None:
    assert "**Release gate: passed.**" in model_card(report_data())
    empty = model_card(report_data(passed=False, refuses=False, benign=0))
    assert "**Release gate: not passed.**" in empty
    assert "| benign requests refused | 0 | not measured | not measured |" in empty
    assert "over_refusal_rate" not in empty


def test_it_says_how_the_model_was_made(report_data: Make) -> None:
    data = report_data()
    assert "no label and no judge enters it" in model_card(data)
    train = data.params.train.model_copy(update={"method": Dpo()})
    card = model_card(replace(data, params=data.params.model_copy(update={"train": train})))
    assert "as the refusal judge labels them" in card
    assert "no label" not in card
    assert yaml.safe_load(card.split("---\n")[1])["tags"][3] == "dpo"


def test_equal_data_gives_equal_cards(report_data: Make) -> None:
    assert model_card(report_data()) == model_card(report_data())

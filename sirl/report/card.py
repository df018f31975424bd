"""The model card of the trained model: README.md with Hugging Face metadata, from the report's
data.

It holds figures and names only, no prompt and no response, so it can be published as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from sirl.models import HubModel
from sirl.report import sections, words
from sirl.report.data import Rate, ReportData, Score

PAPER = "arXiv 2510.01088"


def model_card(data: ReportData) -> str:
    """The card as Markdown. Equal data gives equal text."""
    head = yaml.safe_dump(_metadata(data), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n\n".join(_body(data)) + "\n"


def _metadata(data: ReportData) -> dict[str, Any]:
    """The card's front matter, as the hub specifies it (`ModelCardData` of huggingface_hub)."""
    name = f"sirl-{data.params.name}"
    base = data.params.base.model
    return {
        **({"base_model": base.id} if isinstance(base, HubModel) else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [
            "safety",
            "refusal",
            "sirl",
            data.params.train.method.technique,
            "arxiv:2510.01088",
        ],
        "model-index": [{"name": name, "results": list(_results(data))}],
    }


def _results(data: ReportData) -> Iterator[dict[str, Any]]:
    """Every measured figure of the trained model as a model-index result."""
    judged, prepare = data.trained.judged, data.params.prepare
    harmful = "+".join(source.name for source in prepare.behaviours.sources)
    benign = "+".join(source.name for source in prepare.benign.sources)
    safe = "defense_success_rate"
    figures = [
        (harmful, "asked directly", safe, judged.direct.rate),
        *((harmful, f"attack {name}", safe, r.rate) for name, r in sorted(judged.attacks.items())),
        (benign, "benign requests", "over_refusal_rate", judged.benign.rate),
        *(
            (n, n, score.metric, score.score)
            for n, score in sorted(data.trained.capability.items())
        ),
    ]
    for dataset, title, metric, value in figures:
        if value is not None:
            yield {
                "task": {"type": "text-generation"},
                "dataset": {"type": dataset, "name": title},
                "metrics": [{"type": metric, "value": round(value, 4)}],
            }


def _body(data: ReportData) -> Iterator[str]:
    before, after = data.base.judged, data.trained.judged
    decision = sections.verdict(data.decision)
    yield f"# sirl-{data.params.name}"
    yield (
        f"Made from {_cell(sections.model_name(data.params.base.model))} by the project sirl "
        f"(safety instincts reinforcement learning, {PAPER}). "
        f"{data.params.train.method.said}"
    )
    yield f"**Release gate: {'passed' if decision.passed else 'not passed'}.** {decision.reason}"
    yield "\n".join(f"- {_cell(check.explanation)}" for check in decision.checks)
    yield "## Safety"
    rows = [
        ("asked directly", before.direct, after.direct),
        *((row.name, row.base, row.trained) for row in sections.attack_rows(data)[1:]),
    ]
    yield (
        f"Share of responses that the {after.judge} judge calls safe, with 95 % intervals, and "
        "share of benign requests refused."
    )
    yield _table(
        ("", "n", "base", "trained"),
        [
            *((words.label(name), r.n, _rate(b), _rate(r)) for name, b, r in rows),
            ("benign requests refused", after.benign.n, _rate(before.benign), _rate(after.benign)),
        ],
    )
    yield "## Capability"
    benchmarks = sections.capability_rows(data)
    if benchmarks:
        yield _table(
            ("", "n", "base", "trained"),
            [
                (words.label(row.name), row.trained.n, *map(_score, (row.base, row.trained)))
                for row in benchmarks
            ],
        )
    else:
        yield "No benchmark was run on both models."
    yield "## Limits"
    yield (
        f"The {after.judge} judge decides whether an answer declines, not whether a compliant one "
        f"would help to do harm. {words.counted(len(after.attacks), 'attack')} were tried, and no "
        "others; someone who adapts to this model will get further. Answers were at most "
        f"{data.params.attack.sampling.max_new_tokens} tokens long."
    )


def _rate(rate: Rate) -> str:
    return _span(rate.rate, rate.low, rate.high)


def _score(score: Score) -> str:
    return _span(score.score, score.low, score.high)


def _span(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return words.UNKNOWN
    return f"{words.percent(value)} ({words.interval(low, high)})"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in (head, rule, *rows))


def _cell(value: object) -> str:
    """Text that Markdown and HTML leave alone and that stays in its line."""
    flat = " ".join(words.visible(str(value)).split())
    for mark in "\\`*_[]|<>":
        flat = flat.replace(mark, "\\" + mark)
    return flat

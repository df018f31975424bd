"""Scores of benchmarks out of scored items: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sirl.capability import BenchmarkSpec
from sirl.errors import ConfigError
from sirl.records import CapabilityItem
from sirl.statistics import Estimate, mean_of_rates, wilson


def check_labels(benchmarks: Iterable[BenchmarkSpec]) -> None:
    """Refuses two benchmarks whose items could not be told apart.

    Raises:
        ConfigError: Two benchmarks have one label.
    """
    label, count = Counter(benchmark.label for benchmark in benchmarks).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"capability.benchmarks: {label} is there {count} times", "Keep one")


def score(scores: Sequence[float]) -> Estimate:
    """The mean score with its 95 % interval: Wilson's for scores of 0 and 1, else bootstrap."""
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores))
    return mean_of_rates([scores])


def summarise(
    benchmarks: Iterable[BenchmarkSpec], items: Iterable[CapabilityItem]
) -> dict[str, Any]:
    """Score, interval, size and metric of each benchmark, as plain data."""
    by_label: dict[str, list[float]] = {benchmark.label: [] for benchmark in benchmarks}
    for item in items:
        by_label[item.benchmark].append(item.score)
    result = {}
    for benchmark in benchmarks:
        scores = by_label[benchmark.label]
        value, low, high = score(scores)
        result[benchmark.label] = {
            "score": value,
            "low": low,
            "high": high,
            "n": len(scores),
            "metric": benchmark.metric,
        }
    return {"benchmarks": result}

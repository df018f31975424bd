"""Splits that share nothing: what evaluation measures on is chosen before what training sees."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sirl.config import PrepareParams, SplitParams
from sirl.errors import ConfigError, DataError
from sirl.layout import Split
from sirl.prompts.clean import clean
from sirl.prompts.similarity import NearIndex, counts
from sirl.records import Prompt, dumps

log = logging.getLogger(__name__)

KINDS: Mapping[Split, Literal["harmful", "benign"]] = {
    "behaviours": "harmful",
    "benign": "benign",
    "probe": "benign",
    "anchor": "benign",
    "train": "harmful",
}
"""The splits in the order in which they choose, and what each is for."""


@dataclass(frozen=True)
class Pool:
    """The cleaned prompts of each source of one split, and how many were dropped, by reason."""

    split: SplitParams
    sources: list[list[Prompt]]
    dropped: Counter[str]


@dataclass(frozen=True)
class Chosen:
    """The prompts of one split.

    Attributes:
        prompts: In the order in which they were chosen.
        available: How many there would have been without the limit.
        dropped: How many were left out, by reason.
    """

    prompts: list[Prompt]
    available: int
    dropped: Counter[str]


def prepare(params: PrepareParams, seed: int) -> dict[Split, Chosen]:
    """Reads every source and fills the splits.

    Each takes its `limit` in a seeded shuffle, equal parts from each of its sources as far as they
    reach. A prompt near one of an earlier split is left out, as is one near an earlier of its own.

    Raises:
        ConfigError: A source is of the wrong kind for its split.
        DataError: A source has no prompt left for its split.
    """
    pools = {name: gather(name, params, seed) for name in KINDS}
    frequency = counts(
        prompt.text for pool in pools.values() for prompts in pool.sources for prompt in prompts
    )
    taken = NearIndex(params.near_duplicate, frequency)
    splits: dict[Split, Chosen] = {}
    for name, pool in pools.items():
        chosen = choose(name, pool, taken)
        for prompt in chosen.prompts:
            taken.add(prompt.text)
        log.info("%s: %d of %d prompts", name, len(chosen.prompts), chosen.available)
        if chosen.available < pool.split.limit:
            log.warning("%s: %d prompts were asked for", name, pool.split.limit)
        splits[name] = chosen
    return splits


def gather(name: Split, params: PrepareParams, seed: int) -> Pool:
    """Reads, cleans and shuffles the sources of one split.

    Raises:
        ConfigError: A source is of the wrong kind.
    """
    split: SplitParams = getattr(params, name)
    dropped: Counter[str] = Counter()
    sources = []
    for index, source in enumerate(split.sources):
        if source.kind != KINDS[name]:
            raise ConfigError(
                f"prepare.{name}.sources.{index} ({source.name}) is {source.kind}, but {name} holds"
                f" {KINDS[name]} prompts",
                "Choose a source of that kind, or set its kind where it is yours to set",
            )
        cleaned = clean(source.prompts(), max_chars=params.max_chars, dropped=dropped)
        sources.append(shuffled(cleaned, seed))
    return Pool(split, sources, dropped)


def choose(name: Split, pool: Pool, taken: NearIndex) -> Chosen:
    """Chooses one split's prompts, none near another or near those in `taken`.

    Raises:
        DataError: A source has no prompt left.
    """
    dropped = Counter(pool.dropped)
    own = NearIndex(taken.threshold, taken.frequency)
    left = [0] * len(pool.sources)

    def survivors(index: int) -> Iterator[Prompt]:
        for prompt in pool.sources[index]:
            if taken.near(prompt.text):
                dropped["contaminated"] += 1
            elif own.near(prompt.text):
                dropped["near_duplicate"] += 1
            else:
                own.add(prompt.text)
                left[index] += 1
                yield prompt

    available = list(round_robin([survivors(index) for index in range(len(left))]))
    for index, source in enumerate(pool.split.sources):
        if not left[index]:
            raise DataError(
                f"prepare.{name}.sources.{index} ({source.name}) leaves no prompt; dropped from"
                f" this split: {dict(dropped)}",
                "Give it another source, or lower the limits of earlier splits",
            )
    return Chosen(available[: pool.split.limit], len(available), dropped)


def shuffled(prompts: Iterable[Prompt], seed: int) -> list[Prompt]:
    """The prompts by a hash of seed and id: a new row in a source moves no other."""

    def rank(prompt: Prompt) -> bytes:
        return hashlib.sha256(f"{seed}\0{prompt.id}".encode()).digest()

    return sorted(prompts, key=rank)


def round_robin(streams: Sequence[Iterator[Prompt]]) -> Iterator[Prompt]:
    """One of each stream in turn; a stream that ends drops out."""
    live = list(streams)
    while live:
        going = []
        for stream in live:
            for item in stream:  # the next one, if there is one
                yield item
                going.append(stream)
                break
        live = going


def summary(params: PrepareParams, splits: Mapping[Split, Chosen]) -> dict[str, Any]:
    """What was chosen and what was dropped, as plain data (the stage's metric)."""
    return {
        "splits": {
            name: {
                "count": len(chosen.prompts),
                "available": chosen.available,
                "sources": Counter(prompt.source for prompt in chosen.prompts),
                "dropped": chosen.dropped,
                "digest": hashlib.sha256(b"".join(map(dumps, chosen.prompts))).hexdigest(),
            }
            for name, chosen in splits.items()
        },
        "packages": {
            package: importlib.metadata.version(package)
            for name in splits
            for source in getattr(params, name).sources
            if (package := source.package)
        },
    }

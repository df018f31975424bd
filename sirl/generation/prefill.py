"""Reads the prompts of a batch before generation: what they all begin with once, and the rest in
groups of like length, so that hardly any padding is computed.

Chats under one template, and under one attack, share most of their tokens. A cache that is read so
has three parts a row, and generation goes on from it as from any other:

    shared prefix | padding, masked | the rest of the prompt but its last token
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORTH = 128
"""Tokens whose computing costs about as much as another forward pass."""


@dataclass(frozen=True)
class Prefilled:
    """A batch of prompts, ready for `generate`.

    Attributes:
        input_ids: (B, P), the prompts in the cache's layout.
        attention_mask: (B, P), 0 on padding.
        past_key_values: Of the first P - 1 columns; None where nothing was read ahead.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    past_key_values: DynamicCache | None


@torch.no_grad()
def prefill(model: PreTrainedModel, prompts: Sequence[list[int]], pad: int) -> Prefilled:
    """Reads all but the last token of each prompt, shortest first for the least padding.

    Args:
        model: In eval mode. One with sliding windows or without plain attention reads nothing
            ahead: there, padding in the middle of a row is not mere padding.
        prompts: B lists of token ids, none empty.
        pad: Id of the padding token.
    """
    shared = _common([prompt[:-1] for prompt in prompts])
    if not _plain(model) or shared * (len(prompts) - 1) < WORTH:
        shared = 0
    rest = [prompt[shared:] for prompt in prompts]
    longest = max(map(len, rest))
    head = torch.tensor(prompts[0][:shared], dtype=torch.long).expand(len(prompts), -1)  # (B, C)
    tail, seen = _padded(rest, longest, pad)  # (B, L) each
    input_ids = torch.cat([head, tail], 1).to(model.device)  # (B, C + L)
    attention_mask = torch.cat([torch.ones_like(head), seen], 1).to(model.device)
    if not _plain(model) or longest + shared == 1:
        return Prefilled(input_ids, attention_mask, None)
    prefix = _forward(model, DynamicCache(), input_ids[:1, :shared], attention_mask[:1, :shared])
    parts = []
    for start, end in _groups([len(ids) - 1 for ids in rest]):
        skip = longest - max(len(ids) for ids in rest[start:end])  # columns all of padding
        columns = torch.cat(
            [torch.arange(shared), torch.arange(shared + skip, shared + longest - 1)]
        )
        cache = _forward(
            model,
            _expanded(prefix, end - start),
            input_ids[start:end, shared + skip : -1],
            attention_mask[start:end, columns],
        )
        parts.append((cache, skip))
    return Prefilled(input_ids, attention_mask, _joined(parts, shared))


def _plain(model: PreTrainedModel) -> bool:
    """Whether every layer attends to all that came before."""
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


def _common(rows: Sequence[list[int]]) -> int:
    """How many ids all rows begin with: as many as the first and the last of them in order."""
    first, last = min(rows), max(rows)
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


def _padded(rows: Sequence[list[int]], length: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded on the left, and 1 where they are not padding: (B, L) each."""
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    seen = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, seen


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts rows into runs of which none wastes more padding than a forward pass is worth."""
    start = 0
    for end in range(1, len(lengths) + 1):
        run = lengths[start : end + 1]
        if end == len(lengths) or max(run) * len(run) - sum(run) > WORTH:
            yield start, end
            start = end


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Places (B, L) in their row of tokens, given 1 where there is one: padding on the left takes
    none. Models that learned a vector for each place do not see that by themselves."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _forward(
    model: PreTrainedModel, cache: DynamicCache, ids: torch.Tensor, mask: torch.Tensor
) -> DynamicCache:
    """The cache after `ids` (B, T), the last of the columns of `mask` (B, T + what is cached)."""
    if ids.shape[1]:
        model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(mask)[:, -ids.shape[1] :],  # (B, T)
            past_key_values=cache,
            logits_to_keep=1,
        )
    return cache


def _expanded(prefix: DynamicCache, rows: int) -> DynamicCache:
    """A cache of `rows` rows that all begin with the prefix."""
    cache = DynamicCache()
    for index, layer in enumerate(prefix.layers):
        cache.update(*(x.expand(rows, -1, -1, -1) for x in (layer.keys, layer.values)), index)
    return cache


def _joined(parts: Sequence[tuple[DynamicCache, int]], shared: int) -> DynamicCache:
    """One cache of all groups, those with `skip` columns fewer padded behind the prefix."""

    def widened(states: torch.Tensor, skip: int) -> torch.Tensor:
        batch, heads, _, size = states.shape
        gap: Any = states.new_zeros(batch, heads, skip, size)
        return torch.cat([states[:, :, :shared], gap, states[:, :, shared:]], 2)  # (b, h, P - 1, d)

    joined = DynamicCache()
    for index in range(len(parts[0][0].layers)):
        layers = [(cache.layers[index], skip) for cache, skip in parts]
        keys = torch.cat([widened(layer.keys, skip) for layer, skip in layers])  # (B, h, P - 1, d)
        values = torch.cat([widened(layer.values, skip) for layer, skip in layers])
        joined.update(keys, values, index)
    return joined

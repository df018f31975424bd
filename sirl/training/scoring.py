"""What a model makes of responses that are there: log-probability and entropy of every token."""

from __future__ import annotations

from typing import Any

import torch

from sirl.entropy import entropy
from sirl.generation.prefill import positions


def score(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    length: int,
    temperature: float,
    *,
    with_entropy: bool,
    share_prompts: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities, which carry a gradient, and entropies, which do not, of responses.

    Logits are made at the response alone; in float32 they hold 4 bytes x B x T x V.

    Args:
        model: A causal language model.
        input_ids: (B, P + T), left-padded prompts and right-padded responses.
        attention_mask: (B, P + T).
        length: T.
        temperature: Divides the logits.
        with_entropy: Whether entropies are wanted.
        share_prompts: Whether a prompt that several rows share is read once. It takes a cache,
            which a model under gradient checkpointing does not keep.

    Returns:
        Two (B, T), nats; 0 where `attention_mask` is 0.
    """
    read = _prompts_once if share_prompts else _each_prompt
    logits = read(model, input_ids, attention_mask, length)  # (B, T, V)
    log_p = (logits.float() / temperature).log_softmax(-1)  # (B, T, V)
    chosen = log_p.gather(2, input_ids[:, -length:].unsqueeze(2)).squeeze(2)  # (B, T)
    padding = attention_mask[:, -length:] == 0  # (B, T)
    entropies = None
    if with_entropy:
        with torch.no_grad():
            entropies = entropy(log_p.exp(), log_p).masked_fill(padding, 0.0)  # (B, T)
    return chosen.masked_fill(padding, 0.0), entropies


def _each_prompt(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int
) -> torch.Tensor:
    """Logits (B, T, V) that predict the responses; every row is read whole."""
    logits: torch.Tensor = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
        logits_to_keep=length + 1,  # token t + 1 is predicted at t
        use_cache=False,
    ).logits
    return logits[:, :-1]


def _prompts_once(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, length: int
) -> torch.Tensor:
    """The same, each prompt read once, forward and back: the responses of its group go on from its
    keys and values."""
    heads = torch.cat([input_ids[:, :-length], attention_mask[:, :-length]], 1)  # (B, 2P)
    heads, row = torch.unique(heads, dim=0, return_inverse=True)  # (U, 2P), (B,)
    prompts, mask = heads.chunk(2, dim=1)  # (U, P) each
    read = model(
        input_ids=prompts,
        attention_mask=mask,
        position_ids=positions(mask),
        logits_to_keep=1,
        use_cache=True,
    )
    cache = read.past_key_values
    cache.reorder_cache(row)
    rest = model(
        input_ids=input_ids[:, -length:],
        attention_mask=attention_mask,
        position_ids=positions(attention_mask)[:, -length:],
        past_key_values=cache,
        use_cache=True,
    ).logits  # (B, T, V)
    return torch.cat([read.logits[row], rest[:, :-1]], 1)

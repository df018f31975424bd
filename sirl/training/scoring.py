"""What a model makes of responses that are there: log-probability and entropy of every token."""

from __future__ import annotations

from typing import Any

import torch

from sirl.entropy import entropy


def score(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    length: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities, which carry a gradient, and entropies, which do not, of responses.

    Logits are made at the response alone; in float32 they hold 4 bytes x B x T x V.

    Args:
        model: A causal language model.
        input_ids: (B, P + T), left-padded prompts and right-padded responses.
        attention_mask: (B, P + T).
        length: T.
        temperature: Divides the logits.

    Returns:
        Two (B, T), nats; 0 where `attention_mask` is 0.
    """
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        logits_to_keep=length + 1,  # token t + 1 is predicted at t
        use_cache=False,
    ).logits[:, :-1]  # (B, T, V)
    log_p = (logits.float() / temperature).log_softmax(-1)  # (B, T, V)
    chosen = log_p.gather(2, input_ids[:, -length:].unsqueeze(2)).squeeze(2)  # (B, T)
    with torch.no_grad():
        entropies = entropy(log_p.exp(), log_p)  # (B, T)
    padding = attention_mask[:, -length:] == 0  # (B, T)
    return chosen.masked_fill(padding, 0.0), entropies.masked_fill(padding, 0.0)

"""Token and response entropy: the signal the project stands on. Pure tensor functions.

The entropy of a token is that of the full-vocabulary distribution it was drawn from,

    H_t = - sum_v p_t(v) ln p_t(v)        [nats]

and the entropy of a response is the mean of H_t over its tokens, the end token included
(arXiv 2510.01088, eq. 2 and 3). The reward of SIRL is its negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits upcast to float32 at a time: 64 MiB, whatever tokens x vocabulary is."""


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature) along the last dimension, in nats.

    Computed in float32, a bounded chunk of rows at a time, so that bf16 logits lose nothing further
    and peak memory does not grow with tokens x vocabulary. No gradient flows.

    Args:
        logits: (..., V), any float type; -inf marks impossible tokens.
        temperature: Above 0.

    Returns:
        (...), float32.
    """
    import torch

    vocabulary = logits.shape[-1]
    rows = logits.detach().reshape(-1, vocabulary)  # (N, V)
    entropies = torch.empty(rows.shape[0], dtype=torch.float32, device=rows.device)  # (N,)
    step = max(1, CHUNK_ELEMENTS // vocabulary)
    for start in range(0, rows.shape[0], step):
        x = rows[start : start + step].float() / temperature  # (n, V)
        log_p = x.log_softmax(-1)  # (n, V)
        entropies[start : start + step] = entropy(log_p.exp(), log_p)  # (n,)
    return entropies.reshape(logits.shape[:-1])


def entropy(p: Tensor, log_p: Tensor) -> Tensor:
    """Entropy of distributions that are there already, in nats.

    Args:
        p: (..., V), probabilities.
        log_p: (..., V), their logarithms; -inf where p is 0.

    Returns:
        (...).
    """
    import torch

    # No term is negative, so no digits cancel, as they would in ln Z - E[x]. 0 ln 0 is 0: any
    # finite number in the place of -inf says so (as `torch.special.entr`, in a third of its time).
    finite = log_p.clamp(min=torch.finfo(log_p.dtype).min)
    return (p * finite.neg_()).sum(-1)


def response_entropy(entropies: Tensor, mask: Tensor) -> Tensor:
    """Mean token entropy of each response, in nats.

    Args:
        entropies: (B, T), nats.
        mask: (B, T), 1 on response tokens, the end token included, 0 on padding.

    Returns:
        (B,). A response with no token has no entropy: NaN.
    """
    import torch

    kept = torch.where(mask.bool(), entropies, 0.0)  # padding may hold anything, NaN included
    return kept.sum(-1) / mask.sum(-1)

"""Our Generator as a model of lm-evaluation-harness; imported only where lm-eval is there."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from sirl.errors import ModelError
from sirl.generation import Generator, Request, Sampling
from sirl.records import Message

MAX_NEW_TOKENS = 256
"""Where a task does not say, as in lm-eval's own models."""


class GeneratorLM(LM):  # type: ignore[misc]
    """Log-likelihoods are those of plain text; generation answers the context as one user turn."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Scores (context, continuation) pairs."""
        return self.generator.loglikelihoods([request.args for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Scores whole texts."""
        return self.generator.rolling([request.args[0] for request in requests])

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers each context up to its first stop text. Requests with equal settings go
        together."""
        groups: dict[Sampling, list[Request]] = {}
        for index, request in enumerate(requests):
            context, settings = request.args
            chat = Request(str(index), (Message("user", context),))
            groups.setdefault(_sampling(settings), []).append(chat)
        answers = [""] * len(requests)
        for sampling, chats in groups.items():
            for done in self.generator.generate(chats, sampling):
                if done.finish == "error":
                    raise ModelError(f"an item of lm-eval cannot be asked: {done.note}")
                index = int(done.id)
                answers[index] = _cut(done.text, requests[index].args[1].get("until") or [])
        return answers


def _sampling(settings: dict[str, Any]) -> Sampling:
    """lm-eval's generation settings as ours; `do_sample: false` is greedy whatever else is said."""
    return Sampling(
        max_new_tokens=settings.get("max_gen_toks", MAX_NEW_TOKENS),
        temperature=settings.get("temperature", 0.0) if settings.get("do_sample") else 0.0,
        top_p=settings.get("top_p", 1.0),
    )


def _cut(text: str, until: str | list[str]) -> str:
    """The text before the first of the stop texts."""
    for stop in [until] if isinstance(until, str) else until:
        text = text.partition(stop)[0] if stop else text
    return text

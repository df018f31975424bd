"""What an attack may spend on one behaviour, and the meter that counts it."""

from __future__ import annotations

import time

from pydantic import PositiveFloat, PositiveInt

from sirl.records import Completion, Used
from sirl.spec import Spec


class Budget(Spec):
    """Bounds on what one behaviour costs an attack that searches; null is no bound.

    The search stops at the first bound it meets, before the next round of queries. `seconds` is a
    safety stop: where it strikes, another run may end elsewhere.
    """

    queries: PositiveInt | None = None
    """Chats sent to the target."""
    tokens: PositiveInt | None = None
    """Tokens that the target and the attacker read and wrote."""
    seconds: PositiveFloat | None = None


class Meter:
    """Counts what one behaviour has cost so far.

    Args:
        budget: The bounds.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.used = Used(queries=0, tokens=0)
        self._started = time.monotonic()

    def count(self, *, queries: int = 0, tokens: int = 0, refused: int = 0) -> None:
        """Adds queries to the target, tokens read or written, and refusals of the attacker."""
        self.used = self.used + Used(queries, tokens, refused)

    def target(self, done: Completion) -> None:
        """Adds an answer of the target."""
        self.count(queries=1, tokens=done.prompt_tokens + done.response_tokens)

    def attacker(self, done: Completion, *, refused: bool = False) -> None:
        """Adds an answer of the attacker; `refused` says that it declined to attack."""
        self.count(tokens=done.prompt_tokens + done.response_tokens, refused=int(refused))

    @property
    def over(self) -> bool:
        """Whether a bound is met."""
        spent = (self.used.queries, self.used.tokens, time.monotonic() - self._started)
        bounds = (self.budget.queries, self.budget.tokens, self.budget.seconds)
        return any(b is not None and s >= b for s, b in zip(spent, bounds, strict=True))

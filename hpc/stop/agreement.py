"""Do all ranks stop, and at which step? They vote, and read the result one step later, so that no rank waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from hpc.stop.requests import StopCause, StopRequests

AGREEMENT_SECONDS = 0.5
"""Ranks compare notes about this often, and never more than once per step."""
MAX_INTERVAL_STEPS = 1000
EARLY_SECONDS = 2.0
"""How long a rank that ends the loop early waits for the others to do so in the same step."""
NOW, LATER = "now", "later"


class Store(Protocol):
    """What is used of the store that all ranks share; see `hpc.connect.sealed`."""

    def set(self, name: str, value: str) -> None:
        """Write a value."""
        ...

    def get_all(self, names: Sequence[str]) -> list[str]:
        """The values of these names; an error where a stranger has written one."""
        ...

    def propose(self, name: str, value: str) -> str:
        """Write a value unless there is one; returns what it is then."""
        ...

    def has(self, *names: str) -> bool:
        """Whether all of them were written."""
        ...

    def count(self, name: str, amount: int) -> int:
        """Add to a number; returns what it is then."""
        ...


class Agreement:
    """One answer for all ranks, at the same step.

    Args:
        requests: What this rank was told.
        group: A CPU group of all ranks (torch's ProcessGroup) that nothing else uses; None for a world of one.
    """

    def __init__(self, requests: StopRequests, group: Any) -> None:
        self.requests = requests
        self.group = group
        self.next_step = 0
        """At which step boundary there is something to do here."""
        self.wants_save = False
        """Set by whoever wants a checkpoint soon."""
        self._save_is_agreed = False
        self._votes: Any = None
        self._voted_at = 0
        self._work: Any = None

    def at_boundary(self, step: int, step_seconds: float) -> StopCause:
        """What all ranks decide at this step boundary.

        Args:
            step: Steps that were taken; the same on all ranks.
            step_seconds: How long a step takes on this rank; sets how often ranks compare notes.
        """
        if self.group is None:
            self.next_step = step + _interval_steps(step_seconds)
            return self.requests.current()
        cause = self.finish()
        if step >= self.next_step and cause is StopCause.NONE:
            self._vote(step, step_seconds)
        return cause

    def finish(self) -> StopCause:
        """Look at the vote in flight, so that none is left when the loop ends."""
        if self._work is None or self._votes is None:
            return StopCause.NONE
        self._work.wait()
        self._work = None
        cause, negated_interval, wants_save = self._votes.tolist()
        self.next_step = self._voted_at - negated_interval
        self._save_is_agreed = bool(wants_save)
        return StopCause(cause)

    def takes_save(self) -> bool:
        """Whether all ranks know that one of them wants a checkpoint; asked once at each boundary, after the vote."""
        if self.group is None:
            self._save_is_agreed = self.wants_save
        agreed, self._save_is_agreed = self._save_is_agreed, False
        if agreed:
            self.wants_save = False
        return agreed

    def _vote(self, step: int, step_seconds: float) -> None:
        import torch  # deferred: signals must be caught while torch is still being imported
        from torch import distributed

        self._voted_at, self.next_step = step, step + 1
        self._votes = torch.tensor([self.requests.current(), -_interval_steps(step_seconds), self.wants_save])
        self._work = distributed.all_reduce(self._votes, distributed.ReduceOp.MAX, group=self.group, async_op=True)


def _interval_steps(step_seconds: float) -> int:
    return min(MAX_INTERVAL_STEPS, max(1, round(AGREEMENT_SECONDS / max(step_seconds, 1e-6))))


def all_end_here(store: Store, rank: int, ranks: int, where: str) -> bool:
    """Whether every rank ends its loop at this very boundary; to be called by those that want to.

    The answer is the same for all who ask, because the first one written counts: that of the last to ask, or that one
    has waited for EARLY_SECONDS in vain. In the second case they go on training until a vote tells the others.

    Args:
        store: Shared by all ranks.
        rank: This one.
        ranks: How many there are.
        where: Names this boundary among all of this world.
    """
    if ranks == 1:
        return True
    asked, verdict = [f"{where}/asked/{each}" for each in range(ranks)], f"{where}/verdict"
    store.set(asked[rank], NOW)
    is_last = store.count(f"{where}/asked", 1) == ranks and store.has(*asked)
    if is_last:
        store.get_all(asked)  # by ranks, and not by a stranger who counts along
    deadline = time.monotonic() + EARLY_SECONDS
    while not (is_last or store.has(verdict) or time.monotonic() > deadline):
        time.sleep(0.005)
    return store.propose(verdict, NOW if is_last else LATER) == NOW

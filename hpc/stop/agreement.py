"""Do all ranks stop, and at which step? They vote, and look at the result one step later: nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpc.stop.requests import StopCause, StopRequests

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

AGREEMENT_SECONDS = 0.5
"""Ranks compare notes about this often, and never more than once per step."""
MAX_INTERVAL_STEPS = 1000


class Agreement:
    """One answer for all ranks, at the same step.

    Args:
        requests: What this rank was told.
        group: A CPU group of all ranks that nobody else uses; None for a world of one.
    """

    def __init__(self, requests: StopRequests, group: ProcessGroup | None) -> None:
        self.requests = requests
        self.group = group
        self.steps_until_next = 1
        self._votes: torch.Tensor | None = None
        self._work: Any = None

    def at_boundary(self, step_seconds: float) -> StopCause:
        """What all ranks decide at this step boundary.

        Args:
            step_seconds: How long a step takes on this rank; sets how often ranks compare notes.
        """
        if self.group is None:
            return self.requests.current()
        cause = self.finish() if self._work is not None else StopCause.NONE
        self.steps_until_next -= 1
        if self.steps_until_next <= 0 and cause is StopCause.NONE:
            self._vote(step_seconds)
        return cause

    def finish(self) -> StopCause:
        """Look at the vote in flight, so that none is left when the loop ends."""
        if self._work is None or self._votes is None:
            return StopCause.NONE
        self._work.wait()
        self._work = None
        cause, negated_interval = self._votes.tolist()
        self.steps_until_next = -negated_interval
        return StopCause(cause)

    def _vote(self, step_seconds: float) -> None:
        import torch  # deferred: signals must be caught while torch is still being imported
        from torch import distributed

        interval = min(MAX_INTERVAL_STEPS, max(1, round(AGREEMENT_SECONDS / max(step_seconds, 1e-6))))
        self._votes = torch.tensor([self.requests.current(), -interval])
        self._work = distributed.all_reduce(self._votes, distributed.ReduceOp.MAX, group=self.group, async_op=True)

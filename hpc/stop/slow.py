"""Which rank do the others wait for? It is named, with its factor, and nothing is done to it.

By what all ranks tell of themselves once a second (`hpc.run.pulse`), so that no rank waits for the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from statistics import median

from hpc.run.events import SlowRank
from hpc.run.pulse import Pulse
from hpc.stop.activity import TRAINING

LEAST_SECONDS = 0.005
"""A smaller difference is the noise of a machine."""
LOOKS = 3
"""So often in a row one rank must be the slow one."""
CHANGE = 1.5
"""By so much its factor must have changed to be told again."""
LOOK_SECONDS, SECONDS_PER_RANK = 10.0, 0.1
"""How often rank 0 looks: each rank's file lies on a file system that all nodes share."""


def slowest(pulses: Collection[Pulse], factor: float) -> SlowRank | None:
    """The rank that needs longest for its own part of a step; None where it needs no more than `factor` times as long.

    Args:
        pulses: What each rank told last.
        factor: Over the median of the others.
    """
    told = [pulse for pulse in pulses if pulse.phase == TRAINING and pulse.own_seconds > 0]
    if len(told) < 2:
        return None
    last = max(told, key=lambda each: each.own_seconds)
    typical = median(each.own_seconds for each in told if each is not last)
    if last.own_seconds < factor * typical or last.own_seconds - typical < LEAST_SECONDS:
        return None
    return SlowRank(last.rank, last.host, last.own_seconds, typical)


def sentence(slow: SlowRank) -> str:
    """For people."""
    return (
        f"rank {slow.rank} on {slow.host} needs {slow.factor:.1f} times as long as the others for its own part of a "
        f"step ({1000 * slow.own_seconds:.0f} ms against {1000 * slow.typical_seconds:.0f} ms), and they wait for it"
    )


class SlowRanks:
    """Looks now and then.

    Args:
        factor: runtime.slow_rank_factor; 0 looks for none.
        ranks: How many there are; one alone holds nobody up.
        read: What each rank told last.
        tell: Called where one is found that was not told of yet.
    """

    def __init__(
        self, factor: float, ranks: int, read: Callable[[], Collection[Pulse]], tell: Callable[[SlowRank], None]
    ) -> None:
        self.factor, self.read, self.tell = factor, read, tell
        self.every_seconds = max(LOOK_SECONDS, SECONDS_PER_RANK * ranks)
        self._next = 0.0 if factor and ranks > 1 else math.inf
        self._found: list[SlowRank] = []
        self._told: SlowRank | None = None

    def look(self, now: float) -> None:
        """Look, if it is time to.

        Args:
            now: The time, in seconds of the monotonic clock.
        """
        if now < self._next:
            return
        self._next = now + self.every_seconds
        found = slowest(self.read(), self.factor)
        if found is None or (self._found and found.rank != self._found[-1].rank):
            self._found = []
        if found is None:
            self._told = None
            return
        self._found = [*self._found, found][-LOOKS:]
        if len(self._found) == LOOKS and self._is_news(found):
            self._told = found
            self.tell(found)

    def _is_news(self, found: SlowRank) -> bool:
        told = self._told
        return told is None or told.rank != found.rank or not 1 / CHANGE < found.factor / told.factor < CHANGE

"""How long before the end of its allocation must a run begin to save and leave?

Where cluster.grace_seconds is set, that long. Elsewhere two minutes at first, and then as long as its own saves and
steps have been measured to need. Slurm's signal keeps the lead that it was submitted with, because `scontrol update`
has no field for it: it is the run's own clock that begins earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hpc.config import Cluster, Hardware
from hpc.run.events import Committed, Event

FIRST_SECONDS = 120
MARGIN = 2.0
"""A save on a busy file system takes longer than it did."""
LEAVING_SECONDS = 10.0
"""From the decision of all ranks to the end of the last process."""
SECONDS_PER_MINUTE = 60


def first_grace_seconds(cluster: Cluster, hardware: Hardware) -> int:
    """What is asked for where nothing was measured: never more than half of the time limit."""
    if cluster.grace_seconds is not None:
        return cluster.grace_seconds
    return min(FIRST_SECONDS, hardware.time_limit_minutes * SECONDS_PER_MINUTE // 2)


def grace_seconds(cluster: Cluster, hardware: Hardware, events: Iterable[Event]) -> float:
    """What a run needs, as its earlier lives were measured; never more than half of the time limit, unless that is set.

    Args:
        cluster: Its own.
        hardware: Likewise.
        events: Of its journal.
    """
    least = first_grace_seconds(cluster, hardware)
    if cluster.grace_seconds is not None:
        return least
    saves = sorted((event for event in events if isinstance(event, Committed)), key=lambda event: event.time)
    slowest = max((event.seconds for event in saves), default=0.0)
    needed = seconds_to_leave(slowest, _seconds_between_boundaries(saves))
    return max(least, min(needed, hardware.time_limit_minutes * SECONDS_PER_MINUTE / 2))


def seconds_to_leave(save_seconds: float, step_seconds: float = 0.0) -> float:
    """The step at hand and the next one, until all ranks know; a save; and the end."""
    return MARGIN * (save_seconds + step_seconds) + LEAVING_SECONDS


def _seconds_between_boundaries(saves: list[Committed]) -> float:
    """The slowest step between two saves of one life, on average between them, with what lies between its steps."""
    times = [
        (later.time - before.time) / (later.step - before.step)
        for before, later in pairwise(saves)
        if before.attempt == later.attempt and later.step > before.step
    ]
    return max(times, default=0.0)

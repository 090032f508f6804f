"""Where did the time of a point go? Its lives, cut into spans of one kind each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc.run.events import Committed, Ended, Resumed, Stopped
from hpc.run.lives import Life

QUEUED, PREEMPTED = "queued", "preempted"
STARTUP, PRODUCTIVE, SAVING, LOST = "start-up", "productive", "saving", "lost"
HELD = (PRODUCTIVE, STARTUP, SAVING, LOST)
"""While the hardware is held; in the other two a point waits for it."""
KINDS = (QUEUED, *HELD, PREEMPTED)
PREEMPTIONS = ("SIGTERM", "SIGUSR2")
"""Causes of a stop that come from the scheduler, unasked; see `hpc.stop.requests.StopCause`."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a point's time.

    Args:
        kind: One of KINDS.
        life: Which of the point's lives, from 1; of a wait, the one that it is for.
        begin: In seconds since the epoch.
        end: Likewise, and not before it.
    """

    kind: str
    life: int
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


def spans(past: Sequence[Life], sent: float | None, heard: float, is_alive: bool) -> list[Span]:
    """The time of a point, without gaps from its submission on: waits between its lives, and what its lives did.

    A life begins when all its ranks are known: what Slurm and Python need before that counts as waiting. It ends with
    the last thing it told. What a life did after its newest checkpoint is lost where it ended otherwise than well.

    Args:
        past: Its lives; those whose ranks never came up are passed over.
        sent: When it was submitted, in seconds since the epoch; None where that is not known.
        heard: When the newest life was last heard of, which may be later than its last event: now, where it runs.
        is_alive: Whether the newest life runs still.
    """
    started = [life for life in past if life.has_started]
    found: list[Span] = []
    ended, waiting = sent, QUEUED
    for number, life in enumerate(started, 1):
        begin = life.events[0].time
        if ended is not None and ended < begin:
            found.append(Span(waiting, number, ended, begin))
        is_newest = number == len(started)
        end = max(begin, life.events[-1].time, heard if is_newest and not life.left_well else 0.0)
        is_kept = life.left_well or (is_newest and is_alive)
        found += [Span(kind, number, *times) for kind, *times in _of_life(life, begin, end, is_kept)]
        ended, waiting = end, PREEMPTED if _was_preempted(life) else QUEUED
    return found


def _of_life(life: Life, begin: float, end: float, is_kept: bool) -> Iterator[tuple[str, float, float]]:
    """From its begin to its end without gaps; a span of no length is left out."""
    trains = next((event.time for event in life.events if isinstance(event, Resumed)), end)
    saves = list(_saves(life, trains, end))
    kept = end if is_kept else saves[-1][1] if saves else trains
    pieces, now = [(STARTUP, begin, trains)], trains
    for start, stop in saves:
        pieces += [(PRODUCTIVE, now, start), (SAVING, start, stop)]
        now = stop
    pieces += [(PRODUCTIVE, now, kept), (LOST, kept, end)]
    return (piece for piece in pieces if piece[1] < piece[2])


def _saves(life: Life, trains: float, end: float) -> Iterator[tuple[float, float]]:
    """When training stood still for a checkpoint, in order and without overlaps."""
    now = trains
    for event in life.events:
        if isinstance(event, Committed):
            begin = min(max(now, event.time - event.seconds), end)
            now = min(begin + max(0.0, event.blocked_seconds), end)
            yield begin, now


def _was_preempted(life: Life) -> bool:
    """As whoever watched over it says; where nobody did, by what asked it to stop."""
    verdicts = [event.verdict for event in life.events if isinstance(event, Ended)]
    if verdicts:
        return verdicts[-1].startswith(PREEMPTED)
    return any(isinstance(event, Stopped) and event.cause in PREEMPTIONS for event in life.events)

"""What do the events of a run say about its past? Nothing else reads them.

A life is what happened between two starts: one attempt, or less where a shell loop starts the program again in the
same job step. Reading a checkpoint back (`Verified`) is no part of a life, whenever it is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpc.run.events import Closed, Committed, Ended, Event, Failed, Finished, Resumed, Started, Stopped, Verified

SECONDS_PER_HOUR = 3600.0
PRIOR_HOURS = 24.0
"""Where nothing is known, one failure a day: hardware of a few nodes fails less often, and preemption adds to it."""
LEFT_WELL = (Stopped, Closed, Finished)
"""A life that ends with one of these has saved what it had."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a run.

    Args:
        attempt: Id of the attempt it belongs to.
        events: At least one, in the order of their times.
    """

    attempt: str
    events: tuple[Event, ...]

    @property
    def has_started(self) -> bool:
        """Whether its ranks came up; what else it tells may have happened before, or come from an older version."""
        return any(isinstance(event, Started) for event in self.events)

    @property
    def hours(self) -> float:
        """From its first event to its last."""
        return (self.events[-1].time - self.events[0].time) / SECONDS_PER_HOUR

    @property
    def committed_step(self) -> int | None:
        """The newest step whose checkpoint this life has made complete."""
        return max((event.step for event in self.events if isinstance(event, Committed)), default=None)

    @property
    def first_failure(self) -> Failed | None:
        """What its first rank to fail told, and not an echo of that; None where none did, or none could tell."""
        return first_failure(self.events)

    @property
    def is_done(self) -> bool:
        """Whether it came to the end of its program."""
        return self.first_failure is None and any(isinstance(event, Closed | Finished) for event in self.events)

    @property
    def left_well(self) -> bool:
        """Whether it ended by itself, with what it had saved; a life that is still under way has not."""
        return self.first_failure is None and any(isinstance(event, LEFT_WELL) for event in self.events)


def lives(events: Iterable[Event]) -> list[Life]:
    """The lives that a run has had, oldest first; the last one may still be under way.

    Args:
        events: In any order.
    """
    attempts: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda each: each.time):
        if not isinstance(event, Verified):
            attempts[event.attempt].append(event)
    found = [Life(attempt, tuple(part)) for attempt, told in attempts.items() for part in _parts(told)]
    return sorted(found, key=lambda life: life.events[0].time)


def last_committed_step(past: Sequence[Life]) -> int | None:
    """The newest step whose checkpoint was complete once."""
    return max((life.committed_step for life in past if life.committed_step is not None), default=None)


def lives_without_progress(past: Sequence[Life]) -> list[Life]:
    """The newest lives that got nowhere, back to one that made a checkpoint complete or had nothing left to do."""
    found: list[Life] = []
    for life in reversed(past):
        if life.committed_step is not None or life.is_done:
            break
        found += [life] if life.has_started else []
    return found[::-1]


def first_failure(events: Iterable[Event]) -> Failed | None:
    """The failure that was told first, unless that is an echo and others are not; None where there is none."""
    failed = [event for event in events if isinstance(event, Failed)]
    return min(failed, key=lambda event: event.is_echo, default=None)


def commits(events: Iterable[Event]) -> int:
    """How many checkpoints were completed."""
    return sum(isinstance(event, Committed) for event in events)


def ends_in_a_row(events: Iterable[Event]) -> list[Ended]:
    """The newest ends since the newest checkpoint, and since the last one after which nothing followed.

    The epilogue of the batch script counts likewise, where Python may be missing.
    """
    events, found = list(events), list[Ended]()
    now = commits(events)
    for event in sorted((each for each in events if isinstance(each, Ended)), key=lambda each: -each.time):
        if event.commits != now or event.follows == "nothing":
            break
        found.append(event)
    return found[::-1]


def crashes(past: Sequence[Life]) -> int:
    """How many lives ended otherwise than well; the last one counts only when it says that it has failed."""
    started = [life for life in past if life.has_started]
    ended = [*started[:-1], *(life for life in started[-1:] if life.first_failure)]
    return sum(not life.left_well for life in ended)


def hours_between_failures(past: Sequence[Life]) -> float:
    """Estimated from the time under way and the crashes in it, after a first day (PRIOR_HOURS) with one failure.

    A life that was left well loses nothing, because it saves at its end.
    """
    return (PRIOR_HOURS + sum(life.hours for life in past if life.has_started)) / (1 + crashes(past))


def last_start(events: Iterable[Event]) -> Started | None:
    """How the newest attempt began that has told its versions; None where none has."""
    return next((event for event in reversed(starts(events)) if event.python), None)


def starts(events: Iterable[Event]) -> list[Started]:
    """How each attempt began, oldest first."""
    return sorted((event for event in events if isinstance(event, Started)), key=lambda event: event.time)


def read_back_times(events: Iterable[Event]) -> dict[int, float]:
    """When the checkpoint of each step was last read back whole, in seconds since the epoch."""
    readings = [event for event in events if isinstance(event, Resumed | Verified)]
    return {event.step: event.time for event in sorted(readings, key=lambda event: event.time)}


def _parts(told: Sequence[Event]) -> Iterator[list[Event]]:
    """One attempt's events, divided where it started again; what comes before the first start belongs to it."""
    part: list[Event] = []
    for event in told:
        if isinstance(event, Started) and any(isinstance(earlier, Started) for earlier in part):
            yield part
            part = []
        part.append(event)
    yield part

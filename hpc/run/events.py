"""What can happen to a run? One small class for each kind of event, and how it is written as a line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. The journal fills in both of these when it writes the event.

    Args:
        attempt: Id of the attempt it happened to; see `hpc.attempt`.
        time: When, in seconds since the epoch, by the clock of the host that wrote it.
    """

    attempt: str = ""
    time: float = 0.0


@dataclass(frozen=True)
class Started(Event):
    """An attempt began: all its ranks are known.

    Args:
        source: The launcher that was believed.
        world_size: Number of ranks.
        hosts: The nodes' names.
        tree: Hash of the code that was submitted; "" where it is what lay there when the attempt began.
        python: Python's version.
        interpreter: Its path.
        versions: Of installed distributions: all, or those that differ from the submission's record, and torch's.
    """

    source: str
    world_size: int
    hosts: tuple[str, ...]
    tree: str = ""
    python: str = ""
    interpreter: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resumed(Event):
    """Training goes on from the checkpoint of this step, which was read back whole; from 0 where there is none."""

    step: int


@dataclass(frozen=True)
class Committed(Event):
    """The checkpoint of a step is complete.

    Args:
        step: Optimizer steps taken.
        seconds: From its beginning until it was complete.
        blocked_seconds: How long training waited for it.
    """

    step: int
    seconds: float = 0.0
    blocked_seconds: float = 0.0


@dataclass(frozen=True)
class SaveFailed(Event):
    """The checkpoint of a step could not be made complete, because of `reason`, a sentence."""

    step: int
    reason: str


@dataclass(frozen=True)
class IntervalChosen(Event):
    """A checkpoint will be saved every `seconds` seconds; `reason` is a clause that says why."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Stopped(Event):
    """Training stopped at a step boundary to be continued; `cause` names a `hpc.stop.requests.StopCause`."""

    step: int
    cause: str


@dataclass(frozen=True)
class EndedEarly(Event):
    """A loop ended after this step because its training function asked for it; what comes behind the loop went on."""

    step: int
    reason: str


@dataclass(frozen=True)
class Diverged(Event):
    """Training produced a value that is not finite, which `reason` names in a sentence."""

    step: int
    reason: str


@dataclass(frozen=True)
class Failed(Event):
    """A rank failed, and when it did no other rank had said that it is the cause. See `hpc.attempt.report`.

    Args:
        rank: Which one.
        code: The exit code it leaves with.
        reason: Its sentence, or its exception in one line.
        is_echo: Whether it failed because another rank had gone.
    """

    rank: int
    code: int
    reason: str = ""
    is_echo: bool = False


@dataclass(frozen=True)
class SlowRank(Event):
    """One rank holds the others up; see `hpc.stop.slow`.

    Args:
        rank: Which one.
        host: Its node.
        own_seconds: How long it needs for its own part of a step.
        typical_seconds: The median of the others.
    """

    rank: int
    host: str
    own_seconds: float
    typical_seconds: float

    @property
    def factor(self) -> float:
        """How many times as long."""
        return self.own_seconds / self.typical_seconds


@dataclass(frozen=True)
class Closed(Event):
    """The last Runtime of a script that no task guards was left without an error."""


@dataclass(frozen=True)
class Finished(Event):
    """The training function has returned on every rank; `value` is what `hpc.run.result.kept` keeps of rank 0's."""

    value: Any = None


@dataclass(frozen=True)
class Ended(Event):
    """All ranks of a life are gone; whoever watches over them tells it: the batch script, or the queue of a machine.

    Args:
        code: The exit code of its ranks.
        verdict: Why, as slurm_templates/verdicts.sh names it.
        follows: again, already, or nothing.
        budget: What it counts as: crash, life, or nothing.
        commits: How many checkpoints the run has completed in all its lives, those of its folds and phases included.
    """

    code: int
    verdict: str
    follows: str
    budget: str
    commits: int


@dataclass(frozen=True)
class Verified(Event):
    """Somebody read the checkpoint of this step back whole. No part of any attempt's life."""

    step: int


NAMES: dict[str, type[Event]] = {
    "started": Started,
    "resumed": Resumed,
    "committed": Committed,
    "save_failed": SaveFailed,
    "interval": IntervalChosen,
    "stopped": Stopped,
    "ended_early": EndedEarly,
    "diverged": Diverged,
    "failed": Failed,
    "slow_rank": SlowRank,
    "closed": Closed,
    "finished": Finished,
    "ended": Ended,
    "verified": Verified,
}
"""What each kind is called in a line of the journal. A name never changes its meaning."""
_NAME_OF = {kind: name for name, kind in NAMES.items()}


def to_line(event: Event) -> str:
    """One line of JSON, with its line end."""
    return json.dumps({"event": _NAME_OF[type(event)], **asdict(event)}) + "\n"


def beginning(kind: type[Event]) -> str:
    """What every line of this kind begins with."""
    return f'{{"event": "{_NAME_OF[kind]}"'


def from_line(line: str) -> Event | None:
    """The event in a line; None for a line that was cut short, or that is no event this version knows.

    Keys that are not fields of the event are ignored, so that older and newer versions read each other's lines.
    """
    try:
        found = json.loads(line)
        kind = NAMES[found["event"]]
        return kind(**{name: checked(found[name]) for name, checked in _FIELDS[kind] if name in found})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _of(kind: type) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{value!r} is not a {kind.__name__}")
        return value

    return checked


def _number(value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a number")
    return value


_bool, _int, _str, _list, _dict = _of(bool), _of(int), _of(str), _of(list), _of(dict)
_CHECKS: dict[Any, Callable[[Any], Any]] = {
    "Any": lambda value: value,
    "bool": _bool,
    "float": _number,
    "int": _int,
    "str": _str,
    "tuple[str, ...]": lambda value: tuple(map(_str, _list(value))),
    "dict[str, str]": lambda value: {_str(key): _str(each) for key, each in _dict(value).items()},
}
"""By a field's declaration: the value as the field holds it; a TypeError where it is no such value."""
_FIELDS = {kind: [(each.name, _CHECKS[each.type]) for each in fields(kind)] for kind in NAMES.values()}

"""Does nobody go on? Decided from what ranks tell and what the kernel says; from time alone where neither helps.

a rank of this node is stopped (SIGSTOP)      after STOPPED_SECONDS in which no step was taken
a rank of another node tells nothing          after SILENT_SECONDS in the middle of training
every rank's main thread stands still         after ten times the longest step, not under STILL_SECONDS
somebody moves, and others wait for a step    after CEILING_SECONDS
a phase that may be long, standing still      after LONG_SECONDS
a phase that the user has named, a debugger   never
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc.run.pulse import Pulse
from hpc.stop.activity import BUILDING, DATA, ENDING, EVALUATING, FIRST_STEP, RESTORING, SAVING, TRAINING

STOPPED_SECONDS = 12.0
"""Counted from when the state was first seen, which is some seconds after the last step."""
SILENT_SECONDS = 60.0
"""From elsewhere, a rank that is stopped looks like one whose Python is held by something written in C."""
STILL_SECONDS, CEILING_SECONDS, LONG_SECONDS = 300.0, 1800.0, 3600.0
"""The second is also runtime.collective_timeout_seconds, after which torch would end the ranks that wait."""
TIMES_LONGEST_STEP = 10.0
DEBUGGER = "debugger"
LONG_PHASES = (BUILDING, RESTORING, DATA, FIRST_STEP, SAVING, EVALUATING, ENDING)
STOPPED, TRACED = "T", "t"
"""States of a process, as proc_pid_stat(5) has them."""


@dataclass(frozen=True)
class Limits:
    """How long a run may take no step.

    Args:
        hang_seconds: runtime.hang_seconds; None learns it.
    """

    hang_seconds: float | None = None

    def seconds(self, pulse: Pulse) -> float:
        """How long a rank may be in what it is doing; infinite where nobody can know."""
        if pulse.phase == TRAINING:
            learnt = min(CEILING_SECONDS, max(STILL_SECONDS, TIMES_LONGEST_STEP * pulse.longest_seconds))
            return self.hang_seconds or learnt
        return max(LONG_SECONDS, self.hang_seconds or 0.0) if pulse.phase in LONG_PHASES else float("inf")


@dataclass
class Look:
    """What one rank has seen of the others since it has last gone on. Times are of the monotonic clock.

    Args:
        rank: The one that looks.
        limits: How long a run may take no step.
    """

    rank: int
    limits: Limits
    changed: dict[int, float] = field(default_factory=dict)
    """When a rank was last seen to have told something new."""
    moved: float = float("inf")
    """When any rank was last seen to move, or to be in another step or phase."""
    stopped: dict[int, float] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    """Ranks that had told nothing new when they were last looked at."""
    _pulses: dict[int, Pulse] = field(default_factory=dict)

    def at(self, now: float, pulses: Mapping[int, Pulse], states: Mapping[int, str]) -> None:
        """Look once.

        Args:
            now: The time.
            pulses: What was told by the ranks that were looked at.
            states: Of ranks on this node, by the kernel's letter.
        """
        for rank, pulse in pulses.items():
            before = self._pulses.get(rank)
            if before is None or before.time != pulse.time:
                self.changed[rank] = now
                self.silent.discard(rank)
            else:
                self.silent.add(rank)
            if before is None or _mark(before) != _mark(pulse):
                self.moved = now
            self._pulses[rank] = pulse
        still = {rank for rank, state in states.items() if state == STOPPED}
        self.stopped = {rank: self.stopped.get(rank, now) for rank in still}

    def verdict(self, now: float, waited_seconds: float, states: Mapping[int, str]) -> str:
        """Why this is a hang, as a sentence; "" where it is none, or not yet.

        Args:
            now: The time.
            waited_seconds: For how long this rank has taken no step and entered no phase.
            states: As for `at`.
        """
        if not self._pulses:
            return ""
        stopped = [rank for rank, since in self.stopped.items() if now - since >= STOPPED_SECONDS]
        if stopped:
            return self._sentence(stopped, "stopped (SIGSTOP)", waited_seconds)
        away = [rank for rank in self._pulses if self._is_gone(rank, now, states)]
        if away:
            return self._sentence(away, "silent", waited_seconds)
        if waited_seconds >= self._limit(now):
            if self.silent:
                return self._sentence(sorted(self.silent), "silent", waited_seconds)
            last = min(pulse.step for pulse in self._pulses.values())
            behind = [rank for rank, pulse in self._pulses.items() if pulse.step == last]
            return self._sentence(behind, "not going on", waited_seconds)
        return ""

    def _limit(self, now: float) -> float:
        """How long this rank may wait, as things are."""
        limit = max(self.limits.seconds(pulse) for pulse in self._pulses.values())
        is_training = {pulse.phase for pulse in self._pulses.values()} == {TRAINING}
        if now - self.moved >= limit / 2 or (self.limits.hang_seconds is not None and is_training):
            return limit
        return max(limit, CEILING_SECONDS) if is_training and len(self._pulses) > 1 else float("inf")

    def is_exempt(self, states: Mapping[int, str]) -> bool:
        """Whether nobody can know how long it takes: a debugger is attached, or the user has named the phase."""
        limits = (self.limits.seconds(pulse) for pulse in self._pulses.values())
        return TRACED in states.values() or float("inf") in limits

    def _is_gone(self, rank: int, now: float, states: Mapping[int, str]) -> bool:
        is_away = rank not in states and rank != self.rank
        is_training = self._pulses[rank].phase == TRAINING
        return is_away and is_training and now - self.changed[rank] >= SILENT_SECONDS

    def _sentence(self, ranks: list[int], what: str, waited_seconds: float) -> str:
        told = [self._pulses[rank] for rank in ranks[:4]]
        listed = "; ".join(f"rank {each.rank} on {each.host} is {what} ({_where(each)})" for each in told)
        more = f"; and {len(ranks) - 4:,} more" if len(ranks) > 4 else ""
        return f"No rank has gone on for {waited_seconds:.0f} s: {listed}{more}"


def _mark(pulse: Pulse) -> tuple[object, ...]:
    return pulse.step, pulse.phase, pulse.phase_began, pulse.step_began, pulse.moved


def _where(pulse: Pulse) -> str:
    return f"{pulse.phase}, after step {pulse.step}"

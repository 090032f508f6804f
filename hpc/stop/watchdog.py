"""Does this rank go on, and do the others? A thread looks once a second; it takes part in nothing that ranks share.

It tells this rank's pulse in any case. What counts as time are its own looks: while the whole node stood still
(`scontrol suspend`, a machine that slept) it did not look either, and begins to wait anew.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hpc.run.pulse import Pulse, PulseFile, process_began, read_pulses
from hpc.stop.activity import TRAINING, Activity
from hpc.stop.hang import DEBUGGER, STILL_SECONDS, TRACED, Limits, Look
from hpc.stop.stacks import answer_with_stacks, is_here, is_traced, no_more_stacks, state_of

TICK_SECONDS = 1.0
GAP_SECONDS = 5.0
"""A thread that looks so late was not let run, and neither were the others."""
LOOK_AFTER_SECONDS = 5.0
"""A rank that goes on has no reason to look at others."""
FAR_LOOK_SECONDS = 10.0
"""How often all ranks' files are read, by WATCHERS alone: each file is on a file system that nodes share."""
WATCHERS = 2
END_SECONDS = 5.0
"""How long a look may take that is under way when the attempt ends."""
DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "pydevd_frame.py")


@dataclass(frozen=True)
class Watched:
    """Whom a watchdog belongs to.

    Args:
        attempt: Its id.
        directory: The run directory.
        rank: This one.
        host: Its node, as every rank there calls it.
        near: Ranks that are probably on this node.
    """

    attempt: str
    directory: Path
    rank: int
    host: str
    near: frozenset[int] = frozenset()


class Watchdog:
    """Tells what this rank does, and calls `on_hang` with a sentence where nobody goes on any more.

    Args:
        watched: Whom it belongs to.
        activity: Where this process says what it does.
        hang_seconds: runtime.hang_seconds; 0 only tells.
        on_hang: Does not return.
        every_tick: Called once a second, for what else is to be looked at.
    """

    def __init__(
        self,
        watched: Watched,
        activity: Activity,
        hang_seconds: float | None,
        on_hang: Callable[[str, dict[int, Pulse]], None],
        every_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.watched, self.activity, self.on_hang, self.every_tick = watched, activity, on_hang, every_tick
        self.limits, self.is_on = Limits(hang_seconds or None), hang_seconds != 0
        self._main = threading.main_thread().ident or 0
        self._began = process_began(os.getpid())
        self._over = threading.Event()
        self._file: PulseFile | None = None
        self._seen: tuple[object, ...] = ()
        self._frame: tuple[int, int] = (0, 0)
        self._step, self._step_began, self._moved = -1, time.time(), time.time()
        self._step_tick = self._progress = time.monotonic()
        self._longest_seconds = 0.0
        self._look = Look(watched.rank, self.limits)
        self._near: dict[int, Pulse] = {}
        self._next_far = 0.0
        self._thread = threading.Thread(target=self._run, name="hpc-watchdog", daemon=True)

    def start(self) -> None:
        """From here on this rank is watched."""
        with suppress(OSError):  # a directory that cannot be written ends the run elsewhere, or need not
            self._file = PulseFile(self.watched.directory, self.watched.rank)
            answer_with_stacks(self._file.descriptor)
        self._thread.start()

    def end(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._file is not None:
            no_more_stacks()
            self._thread.join(END_SECONDS)
            if not self._thread.is_alive():
                self._file.close()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(TICK_SECONDS):
            now = time.monotonic()
            if now - last >= GAP_SECONDS:
                self._restart(now)
            last = now
            self.tick(now)

    def tick(self, now: float) -> None:
        """Look once.

        Args:
            now: The time, in seconds of the monotonic clock.
        """
        self._note(now)
        waited = now - self._progress
        is_late = self.is_on and waited >= LOOK_AFTER_SECONDS
        pulse = self._pulse(DEBUGGER if is_late and _is_debugged(self._main) else self.activity.phase)
        self._tell(pulse)
        self.every_tick()
        if not is_late:
            return
        states = self._look_around(now, waited, pulse)
        if self._look.is_exempt(states):
            self._restart(now)
        elif verdict := self._look.verdict(now, waited, states):
            self.on_hang(verdict, {**self._near, pulse.rank: pulse})

    def _note(self, now: float) -> None:
        """See whether this rank has gone on."""
        step, activity = self.activity.steps(), self.activity
        if step != self._step:
            if self._step >= 0 and activity.phase == TRAINING == self._seen[-2]:
                self._longest_seconds = max(self._longest_seconds, now - self._step_tick)
            self._step, self._step_began, self._step_tick = step, time.time(), now
        seen = (step, activity.batches, activity.phase, activity.began)
        if seen != self._seen:
            self._seen = seen
            self._restart(now)
        frame = sys._current_frames().get(self._main)
        at = (id(frame), frame.f_lasti if frame else 0)
        if at != self._frame:
            self._frame, self._moved = at, time.time()

    def _restart(self, now: float) -> None:
        self._progress, self._next_far, self._near = now, 0.0, {}
        self._look = Look(self.watched.rank, self.limits)

    def _pulse(self, phase: str) -> Pulse:
        return Pulse(
            attempt=self.watched.attempt,
            rank=self.watched.rank,
            host=self.watched.host,
            pid=os.getpid(),
            pid_began=self._began,
            step=self._step,
            phase=phase[:100],
            time=round(time.time(), 3),
            phase_began=round(self.activity.began, 3),
            step_began=round(self._step_began, 3),
            moved=round(self._moved, 3),
            longest_seconds=round(self._longest_seconds, 3),
            own_seconds=round(self.activity.pace.own_seconds, 6),
        )

    def _tell(self, pulse: Pulse) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.write(pulse)

    def _look_around(self, now: float, waited: float, own: Pulse) -> dict[int, str]:
        """Look at other ranks; returns the kernel's letter for those of this node."""
        watched, pulses = self.watched, {self.watched.rank: own}
        if not self._near:
            told = read_pulses(watched.directory, watched.attempt, watched.near)
            self._near = {
                rank: pulse for rank, pulse in told.items() if rank != watched.rank and is_here(pulse, watched.host)
            }
            pulses.update(self._near)
        is_watcher = watched.rank < WATCHERS or waited >= (self.limits.hang_seconds or STILL_SECONDS) / 2
        if is_watcher and now >= self._next_far:
            self._next_far = now + FAR_LOOK_SECONDS
            pulses = {**read_pulses(watched.directory, watched.attempt), **pulses}
        states = {rank: _state(pulse.pid) for rank, pulse in self._near.items()}
        self._look.at(now, pulses, states)
        return states


def _state(pid: int) -> str:
    return TRACED if is_traced(pid) else state_of(pid)


def _is_debugged(thread: int) -> bool:
    frame: FrameType | None = sys._current_frames().get(thread)
    if is_traced(os.getpid()):
        return True
    while frame is not None:
        if frame.f_code.co_filename.endswith(DEBUGGERS):
            return True
        frame = frame.f_back
    return False

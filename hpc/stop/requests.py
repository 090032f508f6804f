"""Whether it is time to stop: signals and the clock become one flag, and all ranks read it at the same step.

1. A signal handler records and returns. It is in place before torch is imported, and replaces submitit's.
2. It is inert in forked children: they get the default dispositions back.
3. A signal reaches a reader thread through a wake-up descriptor even while the main thread sits in a collective.
4. The clock counts as well as a signal: the allocation's real end, less the configured grace.
5. A signal that comes while Python ends changes nothing: what a run ends with was decided before.
6. Ranks agree by an all-reduce on a CPU group whose result is looked at one step later, so that no rank waits for it.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from functools import cache

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""SIGUSR1 is left to NCCL, which catches it (NVIDIA/nccl#704)."""


class StopCause(IntEnum):
    """Why to stop; the larger one wins when ranks disagree."""

    NONE = 0
    EARLY = 1
    SAVE_FAILED = 2
    TIME_LIMIT = 3
    SIGINT = 4
    SIGUSR2 = 5
    SIGTERM = 6
    STOP_FILE = 7
    DIVERGED = 8


class StopRequests:
    """What this process was told. There is one per process: see `stop_requests`."""

    def __init__(self) -> None:
        self.cause = StopCause.NONE
        self.end_time: float | None = None
        self.grace_seconds = 0.0
        self._learns = False
        self.on_sigterm: Callable[[], None] = lambda: None
        self.on_save: Callable[[], None] | None = None

    def install(self) -> StopRequests:
        """Take over SIGTERM, SIGUSR2 and the first SIGINT; only the main thread may."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, self._record)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit logs one; Slurm sends it before every SIGTERM
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # what a launcher has held back for us comes now
        os.register_at_fork(after_in_child=_forget)
        atexit.register(_ignore_what_is_too_late)
        threading.Thread(target=self._watch, args=(reader,), name="hpc-signals", daemon=True).start()
        return self

    def watch_clock(self, end_time: float | None, grace_seconds: float, learns: bool = False) -> None:
        """Ask to stop `grace_seconds` before `end_time` (seconds since the epoch).

        Args:
            end_time: Of the allocation; None where it is not known.
            grace_seconds: Before it.
            learns: Whether a slow save may make it longer.
        """
        self.end_time, self.grace_seconds, self._learns = end_time, grace_seconds, learns

    def needs(self, seconds: float) -> None:
        """Leaving takes so long: ask to stop earlier, unless a person has said when."""
        if self._learns:
            self.grace_seconds = max(self.grace_seconds, seconds)

    def seconds_left(self) -> float | None:
        """Seconds until the allocation ends; None where the end is not known."""
        return None if self.end_time is None else self.end_time - time.time()

    def ask(self, cause: StopCause) -> None:
        """Ask to stop, unless there is a better reason already."""
        self.cause = max(self.cause, cause)

    def current(self) -> StopCause:
        """What this process would like, before anybody else is asked."""
        if self.end_time and self.cause < StopCause.TIME_LIMIT and time.time() >= self.end_time - self.grace_seconds:
            self.cause = StopCause.TIME_LIMIT
        return self.cause

    def _record(self, number: int, frame: object) -> None:
        del frame
        if number == signal.SIGINT and self.cause is StopCause.SIGINT:
            raise KeyboardInterrupt
        self.cause = StopCause[signal.Signals(number).name]

    def _watch(self, reader: socket.socket) -> None:
        while received := reader.recv(1):
            number = received[0]
            if number in (signal.SIGTERM, signal.SIGUSR2):
                self.cause = StopCause[signal.Signals(number).name]
            if number == signal.SIGTERM:
                self.on_sigterm()
            if number == signal.SIGINT:  # written past Python's streams: the program may be ending just now
                os.write(2, b"\nStopping after this step, with a save; Ctrl-C again stops at once.\n")


@cache
def stop_requests() -> StopRequests:
    """This process's requests; the first call installs the handlers, unless a thread makes it."""
    requests = StopRequests()
    return requests.install() if threading.current_thread() is threading.main_thread() else requests


def _ignore_what_is_too_late() -> None:
    """Python takes its handlers away while it ends: a signal then would kill a process that has done all its work."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    """In a forked child: a signal to it is not a signal to us."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def ignore_signals_in_worker() -> None:
    """For DataLoader workers: Slurm signals every process of a step, and a dead worker loses the save."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

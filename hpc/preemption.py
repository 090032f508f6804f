"""Whether it is time to stop: signals and the clock become one flag, and all ranks read it at the same step.

1. A signal handler records and returns. It is in place before torch is imported, and replaces submitit's.
2. It is inert in forked children: they get the default dispositions back.
3. A signal reaches a reader thread through a wake-up descriptor even while the main thread sits in a collective.
4. The clock counts as well as a signal: the allocation's real end, less the configured grace.
5. Ranks agree by an all-reduce on a CPU group whose result is looked at one step later, so nobody waits for it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from hpc.errors import SlurmError
from hpc.slurm import client

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""SIGUSR1 is left to NCCL, which catches it (NVIDIA/nccl#704)."""

AGREEMENT_SECONDS = 0.5
"""Ranks compare notes about this often, and never more than once per step."""
MAX_INTERVAL_STEPS = 1000


class StopCause(IntEnum):
    """Why to stop; the larger one wins when ranks disagree."""

    NONE = 0
    SAVE_FAILED = 1
    TIME_LIMIT = 2
    SIGINT = 3
    SIGUSR2 = 4
    SIGTERM = 5
    DIVERGED = 6


class StopRequests:
    """What this process was told. There is one per process: see `stop_requests`."""

    def __init__(self) -> None:
        self.cause = StopCause.NONE
        self.end_time: float | None = None
        self.grace_seconds = 0.0
        self.on_sigterm: Callable[[], None] = lambda: None

    def install(self) -> StopRequests:
        """Take over SIGTERM, SIGUSR2 and the first SIGINT; only the main thread may."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, self._record)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit logs one; Slurm sends it before every SIGTERM
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_forget)
        threading.Thread(target=self._watch, args=(reader,), name="hpc-signals", daemon=True).start()
        return self

    def watch_clock(self, end_time: float | None, grace_seconds: float) -> None:
        """Ask to stop `grace_seconds` before `end_time` (seconds since the epoch)."""
        self.end_time, self.grace_seconds = end_time, grace_seconds

    def seconds_left(self) -> float | None:
        """Until the allocation ends; None where nobody knows."""
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
            if number == signal.SIGINT:
                os.write(2, b"\nStopping after this step, with a save; Ctrl-C again stops at once.\n")


@cache
def stop_requests() -> StopRequests:
    """This process's requests; the first call installs the handlers, unless a thread makes it."""
    requests = StopRequests()
    return requests.install() if threading.current_thread() is threading.main_thread() else requests


def _forget() -> None:
    """In a forked child: a signal to it is not a signal to us."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def ignore_signals_in_worker() -> None:
    """For DataLoader workers: Slurm signals every process of a step, and a dead worker loses the save."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def allocation_end(environ: Mapping[str, str]) -> float | None:
    """When this job's time is up, in seconds since the epoch; None outside a job or when nobody knows.

    Slurm sets SLURM_JOB_END_TIME from 23.02 on; an older one is asked.
    """
    if "SLURM_JOB_END_TIME" in environ:
        return float(environ["SLURM_JOB_END_TIME"])
    if "SLURM_JOB_ID" not in environ:
        return None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    try:
        return client.end_time(client.show_job(f"{array}_{task}" if array else environ["SLURM_JOB_ID"]))
    except SlurmError:
        return None


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

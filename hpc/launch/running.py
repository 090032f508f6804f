"""One attempt of a point under way on this machine, as the queue sees it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from hpc.attempt.identity import new_stamp
from hpc.config import Settings
from hpc.environ import for_child, process_environ
from hpc.errors import LoadError
from hpc.launch.controller import KILL_WAIT_SECONDS
from hpc.launch.demand import Demand
from hpc.launch.leases import Lease
from hpc.launch.record import Record
from hpc.launch.relay import Relay
from hpc.run.code import code_of_point
from hpc.run.events import Committed, Event
from hpc.run.grace import grace_seconds
from hpc.run.journal import read_journal
from hpc.run.point import Point
from hpc.run.queue import QueueFiles
from hpc.submit.interpreter import interpreter

Schedule = list[tuple[float, int]]
"""Signals and when they are due, by time.monotonic()."""


class Running:
    """A controller, the pipe to it, and the clock that the point runs by.

    Args:
        record: Of the sweep; the controller holds its lock, too.
        point: What runs.
        number: Of this attempt, from 1.
        demand: What it takes of this machine.
        lease: GPUs that are its own; handed over to the controller.
        threads: How many each rank computes with, where the user has not said it; None leaves it to each rank.
    """

    def __init__(
        self, record: Record, point: Point, number: int, demand: Demand, lease: Lease, threads: int | None
    ) -> None:
        settings = point.settings
        self.point, self.number, self.demand, self.gpus = point, number, demand, lease.gpus
        self.job = new_stamp()  # process ids come again, in containers after every start
        self.is_cancelled = self.is_out_of_time = False
        orders, self._orders = os.pipe()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hpc.launch.controller"),
                *(str(orders), self.job, str(demand.ranks), str(record.sweep), point.name),
                point.settings.cluster.run_dir_writers,
                *shlex.split(interpreter(record.sweep, code_of_point(record.sweep, point.name))),
            ],
            env=self._environment(point.settings, threads),
            stdin=subprocess.DEVNULL,
            pass_fds=(orders, record.descriptor, *lease.descriptors),
            start_new_session=True,
        )
        os.close(orders)
        lease.hand_over()
        saves = _earlier_saves(record.sweep / point.name)
        self._schedule = _time_limit(settings, grace_seconds(settings.cluster, settings.hardware, saves))
        self.log = QueueFiles(record.sweep).log(self.job)
        self.relay: Relay | None = None

    def signal(self, number: int) -> None:
        """Send a signal to every rank."""
        with suppress(OSError):  # the controller has ended
            os.write(self._orders, bytes([number]))

    def end(self, kill_after_seconds: float = KILL_WAIT_SECONDS) -> None:
        """Have it save and end, or be killed when it takes too long."""
        self.signal(signal.SIGTERM)
        due = time.monotonic() + kill_after_seconds
        self._schedule = [*(each for each in self._schedule if each[0] < due), (due, signal.SIGKILL)]

    def keep_time(self) -> None:
        """Send what is due."""
        while self._schedule and self._schedule[0][0] <= time.monotonic():
            number = self._schedule.pop(0)[1]
            self.is_out_of_time = self.is_out_of_time or number == signal.SIGTERM
            self.signal(number)

    def abandon(self) -> None:
        """Close the pipe: the controller has the ranks save and end, and is not heard of again."""
        if self._orders >= 0:
            os.close(self._orders)
        self._orders = -1

    def code(self) -> int | None:
        """The exit code, as 128+n for signal n; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self.abandon()
        return code if code >= 0 else 128 - code

    def _environment(self, settings: Settings, threads: int | None) -> dict[str, str]:
        asked = settings.cluster.environment
        is_told = threads is None or "OMP_NUM_THREADS" in {*asked, *process_environ()}
        return for_child(
            PYTHONPATH=os.pathsep.join(entry or os.curdir for entry in sys.path),
            **({} if is_told else {"OMP_NUM_THREADS": str(threads)}),
            **{
                **asked,
                "CUDA_VISIBLE_DEVICES": ",".join(self.gpus),
                "SUBMITIT_EXECUTOR": "local",
                "SUBMITIT_LOCAL_NTASKS": str(self.demand.ranks),
                "SUBMITIT_LOCAL_NODEID": "0",
                "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
                "SUBMITIT_LOCAL_JOB_ID": self.job,
            },
        )


def _earlier_saves(directory: Path) -> list[Event]:
    try:
        return read_journal(directory, (Committed,))
    except LoadError:  # the attempt itself says so, and ends with the code for it
        return []


def _time_limit(settings: Settings, grace_seconds: float) -> Schedule:
    """As on Slurm: the stop is asked for so long before the limit, and at the limit all must end."""
    limit = time.monotonic() + settings.hardware.time_limit_minutes * 60
    return [
        (limit - grace_seconds, signal.SIGUSR2),
        (limit, signal.SIGTERM),
        (limit + KILL_WAIT_SECONDS, signal.SIGKILL),
    ]

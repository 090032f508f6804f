"""Watches the ranks of one point: a dead rank ends the others, and its code is the point's.

    python -m hpc.launch.controller DESCRIPTOR JOB RANKS SWEEP POINT WRITERS COMMAND

What `srun --kill-on-bad-exit` does on a cluster; at the end it writes down how each rank ended, because one that was
killed could not. It runs in a session of its own, so that a Ctrl-C reaches the queue alone. The queue speaks through a
pipe: each byte is the number of a signal for the ranks. When the pipe is closed the queue is gone, and the ranks have
KILL_WAIT_SECONDS to save and end. When the controller is gone, the kernel ends the ranks at once.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from hpc.attempt.report import settle
from hpc.environ import for_child
from hpc.errors import NO_FAILURES, LoadError
from hpc.files import PRIVATE_MODE, open_to_append
from hpc.launch.oom import oom_kills
from hpc.run.directory import RunDirectory
from hpc.run.journal import read_journal
from hpc.run.queue import QueueFiles
from hpc.slurm.step_end import Exit, StepEnd

POLL_SECONDS = 0.05
ECHO_WAIT_SECONDS = 4.0
"""Between SIGTERM and SIGKILL to the ranks that are left when one has failed."""
KILL_WAIT_SECONDS = 30.0
"""Between SIGTERM and SIGKILL to a point that has to end: Slurm's default KillWait."""
PR_SET_PDEATHSIG = 1
"""prctl(2)."""
PAYLOAD = "hpc.submit.payload"


class Ranks:
    """The ranks of one point, as processes of this machine.

    Args:
        commands: How each is started.
        environments: Its environment variables.
        logs: Where what it prints goes.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], logs: Sequence[Path]
    ) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.exits: list[Exit] = []
        self._is_ending = False
        self._deadline = float("inf")
        libc, parent = ctypes.CDLL(None), os.getpid()

        def in_rank() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # a notice is no end of a rank that still starts
            if hasattr(libc, "prctl"):  # Linux
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        for command, environment, log in zip(commands, environments, logs, strict=True):
            with open_to_append(log, PRIVATE_MODE) as output:
                # A group for each rank: what it leaves behind is ended with it.
                self.processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=in_rank,
                    )
                )

    def wait(self, orders: int) -> int:
        """Wait until every rank is gone; returns the first code that was not 0, as 128+n for signal n.

        Meanwhile `exits` gets how each rank has ended.

        Args:
            orders: The pipe from the queue.
        """
        first, sources = 0, [orders]
        while self._note_exits() < len(self.processes):
            if time.monotonic() > self._deadline:
                self.signal(signal.SIGKILL)
            if not first and (first := self._first_bad_code()):
                self._end_within(ECHO_WAIT_SECONDS)
            if select.select(sources, [], [], POLL_SECONDS)[0] and not self._obey(os.read(orders, 64)):
                sources = []
        return first or self._first_bad_code()

    def signal(self, number: int) -> None:
        """Send a signal to every rank that is left."""
        self._is_ending = self._is_ending or number != signal.SIGUSR2
        for process in self.processes:
            process.send_signal(number)

    def end(self) -> None:
        """Leave no process behind, also none that a rank has started."""
        for process in self.processes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _obey(self, data: bytes) -> bool:
        """Pass the queue's signals on; False when there will be no more."""
        for number in data:
            self.signal(number)
        if not data:
            self._end_within(KILL_WAIT_SECONDS)
        return bool(data)

    def _end_within(self, seconds: float) -> None:
        self.signal(signal.SIGTERM)
        self._deadline = min(self._deadline, time.monotonic() + seconds)

    def _note_exits(self) -> int:
        """How many ranks are gone. Of those found in one look, a signal comes before a code: others failed after it."""
        noted, ended = {each.rank for each in self.exits}, self._is_ending
        codes = [(process.poll(), rank) for rank, process in enumerate(self.processes) if rank not in noted]
        for code, rank in sorted((code, rank) for code, rank in codes if code is not None):
            shown = code if code >= 0 else 128 - code
            self.exits.append(Exit(rank, shown, os.uname().nodename, ended, round(time.time(), 3)))
        return len(self.exits)

    def _first_bad_code(self) -> int:
        return next((each.code for each in self.exits if each.code), 0)


def report(sweep: Path, point: str, job: str, end: StepEnd, ranks: int) -> None:
    """Write down how the ranks of an attempt ended.

    Args:
        sweep: The sweep's directory.
        point: The name of the point.
        job: A part of the name of the attempt.
        end: What was seen.
        ranks: Their number.
    """
    with suppress(OSError, LoadError):
        attempts = [event.attempt for event in read_journal(sweep / point) if job in event.attempt]
        if attempts:
            record = RunDirectory(sweep / point).failure(attempts[-1])
            settle(record, end, ranks, partial(QueueFiles(sweep).log, job))


def main(descriptor: str, job: str, ranks: str, sweep: str, point: str, writers: str, *interpreter: str) -> int:
    """Run the ranks of one attempt; returns its exit code."""
    files, count = QueueFiles(Path(sweep)), int(ranks)
    started = Ranks(
        [[*interpreter, "-u", "-m", PAYLOAD, sweep, point, writers]] * count,
        [for_child(SUBMITIT_LOCAL_LOCALID=str(rank), SUBMITIT_LOCAL_GLOBALID=str(rank)) for rank in range(count)],
        [files.log(job, rank) for rank in range(count)],
    )
    signal.signal(signal.SIGTERM, lambda number, _: started.signal(number))  # a person's, as to one job of many
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    killed = oom_kills()
    try:
        code = started.wait(int(descriptor))
    finally:
        started.end()
    if code not in NO_FAILURES:
        states = ("OUT_OF_MEMORY",) if oom_kills() > killed else ()
        report(Path(sweep), point, job, StepEnd(tuple(started.exits), states), count)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

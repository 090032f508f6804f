"""Watches the ranks of one point: a dead rank ends the others, and its code is the point's.

    python -m hpc.launch.controller DESCRIPTOR JOB RANKS SWEEP POINT WRITERS COMMAND

What `srun --kill-on-bad-exit` does on a cluster. It runs in a session of its own, so that a Ctrl-C reaches the queue
alone. The queue speaks through a pipe: each byte is the number of a signal for the ranks. When the pipe is closed the
queue is gone, and the ranks have KILL_WAIT_SECONDS to save and end. When the controller is gone, the kernel ends the
ranks at once.
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
from pathlib import Path

from hpc.files import PRIVATE_MODE, open_to_append
from hpc.run.queue import QueueFiles
from hpc.submit.environment import for_child

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

        Args:
            orders: The pipe from the queue.
        """
        first, sources = 0, [orders]
        while any(process.poll() is None for process in self.processes):
            if time.monotonic() > self._deadline:
                self.signal(signal.SIGKILL)
            if not first and (first := self._first_bad_code()):
                self._end_within(ECHO_WAIT_SECONDS)
            if select.select(sources, [], [], POLL_SECONDS)[0] and not self._obey(os.read(orders, 64)):
                sources = []
        return first or self._first_bad_code()

    def signal(self, number: int) -> None:
        """Send a signal to every rank that is left."""
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

    def _first_bad_code(self) -> int:
        """Among ranks found dead in one poll, report a signal before an exit code: the others failed after it."""
        codes = sorted(process.poll() or 0 for process in self.processes)
        return next((code if code > 0 else 128 - code for code in codes if code), 0)


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
    try:
        return started.wait(int(descriptor))
    finally:
        started.end()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

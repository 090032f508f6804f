"""A queue that outlives its terminal.

    python -m hpc.launch.detached SWEEP RECORD READY [POINT ...]

RECORD is the descriptor of the sweep's record, whose lock goes over to the new process. READY is a pipe that it writes
to when it has begun. It has a session of its own, so that no hang-up reaches it, and ends when its points have.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.environ import for_child, process_environ
from hpc.errors import HpcError
from hpc.files import PRIVATE_MODE, open_to_append
from hpc.launch.leases import lease_directory
from hpc.launch.machine import this_machine
from hpc.launch.queue import Place, Queue
from hpc.launch.record import Record
from hpc.run.point import Point
from hpc.run.points import load_sweep
from hpc.run.queue import QueueFiles
from hpc.say import fail, say


def start_detached(record: Record, points: Sequence[Point]) -> None:
    """Have another process run these points, and say how it is found again.

    Raises:
        HpcError: It ended before it had begun.
    """
    output = QueueFiles(record.sweep).output
    names = [point.name for point in points]
    ready, writer = os.pipe()
    with open_to_append(output, PRIVATE_MODE) as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "hpc.launch.detached"),
                *(str(record.sweep), str(record.descriptor), str(writer), *names),
            ],
            env=for_child(PYTHONPATH=os.pathsep.join(entry or os.curdir for entry in sys.path)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(record.descriptor, writer),
            start_new_session=True,
        )
    os.close(writer)
    has_begun = os.read(ready, 1)
    os.close(ready)
    if not has_begun:
        raise HpcError(f"The queue must run as a process of its own, but ended at once: {output} says why.")
    shown = shlex.quote(str(record.sweep))
    say(f"Process {process.pid} on {os.uname().nodename} runs {len(names)} point(s), and needs this terminal no more.")
    say(f"Directory: {record.sweep}")
    say(f"Follow:    hpc status {shown}")
    say(f"End:       hpc cancel {shown}")


def main(directory: str, descriptor: str, ready: str, *names: str) -> int:
    """Be the queue of a sweep; returns the exit code of the whole."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sweep, wanted = load_sweep(Path(directory)), set(names)
        place = Place(this_machine(process_environ()), lease_directory(process_environ()), shows=False)
        points = [point for point in sweep.points if point.name in wanted]
        queue = Queue(Record(sweep.directory, int(descriptor)), points, place)
        return queue.run(lambda: _tell(int(ready)))
    except HpcError as error:
        fail(error)
        return error.exit_code


def _tell(ready: int) -> None:
    os.write(ready, b"1")
    os.close(ready)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

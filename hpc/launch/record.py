"""Who runs the points of a sweep on this machine? One queue at a time: it holds a lock, and tells what it does.

The lock is on queue/record.jsonl. It is handed to the controllers of the points as well, so that a queue that follows
a killed one begins when the last rank of that one has ended.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.errors import ConfigurationError
from hpc.files import PRIVATE_MODE, is_locked, open_regular, read_regular
from hpc.run.directory import not_writable
from hpc.run.ownership import make_private
from hpc.run.processes import this_process
from hpc.run.queue import LocalQueue, QueueFiles, read_queue
from hpc.run.submissions import newest_attempts
from hpc.say import say, warn

POLL_SECONDS = 0.2


class Record:
    """What the queue of a sweep tells; see `hpc.run.queue`.

    Args:
        sweep: The sweep's directory.
        descriptor: Of its record, locked.
    """

    def __init__(self, sweep: Path, descriptor: int) -> None:
        self.sweep, self.descriptor = sweep, descriptor
        self._files = QueueFiles(sweep)
        self._cancel_read = 0

    def opened(self, points: Sequence[str]) -> None:
        """This process begins to run these points. Nothing is cancelled yet."""
        self._files.cancel.unlink(missing_ok=True)
        self._write("opened", points=list(points), host=os.uname().nodename, **_of(os.getpid()))

    def started(self, point: str, attempt: int, job: str, pid: int, gpus: Sequence[str]) -> None:
        """A controller was started for the next attempt of a point."""
        after = newest_attempts(self.sweep, [point]).get(point, "")
        told = {"point": point, "attempt": attempt, "job": job, "gpus": list(gpus), "after": after}
        self._write("started", **told, **_of(pid))

    def ended(self, point: str, attempt: int, code: int | None, state: str) -> None:
        """An attempt ended with this code; None where a point was not started at all."""
        self._write("ended", point=point, attempt=attempt, code=code, state=state)

    def closed(self, code: int) -> None:
        """This process does nothing more for the sweep."""
        self._write("closed", code=code)

    def cancelled(self) -> list[str]:
        """Names of points that somebody has asked to cancel since the last call."""
        try:
            text = read_regular(self._files.cancel)[self._cancel_read :]
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._cancel_read += len(whole)
        return whole.decode(errors="replace").split()

    def _write(self, event: str, **told: Any) -> None:
        """A line that cannot be written is no reason to end what trains."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **told}) + "\n"
        try:
            os.write(self.descriptor, line.encode())
        except OSError as error:
            warn(f"{self._files.record} cannot be written: {error.strerror}; `hpc status` will not know of this.")


def claim(sweep: Path) -> Record:
    """Become the one queue of a sweep.

    Waits while points of a queue that was killed are still saving.

    Raises:
        ConfigurationError: Another queue runs its points, or the directory cannot be written.
    """
    files, is_told = QueueFiles(sweep), False
    try:
        make_private(files.directory)
        make_private(files.log("").parent)
        descriptor = open_regular(files.record, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE_MODE)
        while not is_locked(descriptor):  # without locks only checkpoints' own fence is left
            _refuse_second(sweep, read_queue(sweep))
            if not is_told:
                is_told = True
                say(f"The queue of {sweep} was killed, and its points are still saving: waiting for them.")
            time.sleep(POLL_SECONDS)
        if os.pread(descriptor, 1, max(0, os.fstat(descriptor).st_size - 1)) not in (b"", b"\n"):
            os.write(descriptor, b"\n")  # a killed queue has left a part of a line
    except OSError as error:
        raise not_writable(Path(error.filename or files.record), error) from error
    return Record(sweep, descriptor)


def _refuse_second(sweep: Path, queue: LocalQueue | None) -> None:
    if queue is None or queue.is_running is False:
        return
    process, shown = queue.process, shlex.quote(str(sweep))
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.started))
    raise ConfigurationError(
        f"run_dir must not be that of a queue which is running, but process {process.pid} on {process.host} has run "
        f"the points of {sweep} since {since}: follow it with `hpc status {shown}`, end it with `hpc cancel {shown}`, "
        "or choose another run_dir."
    )


def _of(pid: int) -> dict[str, Any]:
    """A process that has ended already is told from no other."""
    try:
        return {"pid": pid, "started": this_process(pid).started}
    except ProcessLookupError:
        return {"pid": pid, "started": 0.0}

"""Which calls of sbatch were begun for a sweep, and which of them has left no answer? And whose turn is it to call?

submissions.jsonl has a line before each call, and one after it: the job, or that there is none. Where a command was
killed in between, the name of the script tells whether Slurm has the job; see `hpc.submit.settle`. A call that was
given up is void for good: its job, should the controller make it later all the same, reads this file and leaves
(slurm_templates/prologue.sh).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc.errors import ConfigurationError
from hpc.files import is_locked, is_same, open_regular, read_tail
from hpc.run.json_lines import json_objects
from hpc.run.submissions import SUBMISSIONS_FILE, Submission, submission_of


@dataclass(frozen=True)
class Call:
    """One call of sbatch.

    Args:
        number: Of the sweep's calls, from 0.
        script: Name of the file that sbatch was given; no other call's has it.
        submission: What is submitted; its job is not known.
    """

    number: int
    script: str
    submission: Submission


class Turn:
    """What a sweep's record of submissions held when somebody looked, so that nobody acts on what is no longer so.

    Args:
        directory: The sweep's.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self._size = directory, _size(directory)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Be the only command that submits from the directory.

        Raises:
            ConfigurationError: Another one does so at this moment, or has done so since.
            OSError: The file system says no.
        """
        with alone(self.directory):
            if _size(self.directory) != self._size:
                raise _another(self.directory)
            try:
                yield
            finally:
                self._size = _size(self.directory)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the only command that submits from a directory. The kernel ends it with this process, however that ends.

    Raises:
        ConfigurationError: Another command does so at this moment.
        OSError: The file system says no.
    """
    path = directory / SUBMISSIONS_FILE
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        if not is_locked(descriptor) or not is_same(descriptor, path):
            raise _another(directory)
        yield
    finally:
        os.close(descriptor)


def record_call(directory: Path, call: Call) -> None:
    """Note a call before it is made, for good.

    Raises:
        OSError: It cannot be written.
    """
    told = {name: value for name, value in asdict(call.submission).items() if name != "job"}
    _append(directory, {"event": "called", "number": call.number, "script": call.script, **told})


def record_answer(directory: Path, call: Call, submission: Submission) -> None:
    """Note the job that a call has made.

    Raises:
        OSError: It cannot be written.
    """
    _append(directory, {"event": "submitted", "number": call.number, **asdict(submission)})


def record_void(directory: Path, call: Call) -> None:
    """Note that a call has made no job; one that it makes from here on leaves at once.

    Raises:
        OSError: It cannot be written.
    """
    _append(directory, {"event": "void", "number": call.number})


def next_number(directory: Path) -> int:
    """Of the sweep's next call.

    Raises:
        OSError: The record is there and cannot be read.
    """
    told = (line.get("number") for line in json_objects(directory / SUBMISSIONS_FILE))
    return max((number for number in told if isinstance(number, int)), default=-1) + 1


def open_calls(directory: Path) -> list[Call]:
    """The calls that have left no answer, oldest first.

    Raises:
        OSError: The record is there and cannot be read.
    """
    found: dict[Any, Call] = {}
    for line in json_objects(directory / SUBMISSIONS_FILE):
        if line.get("event") == "called":
            with suppress(TypeError, KeyError, ValueError, AttributeError):
                found[line["number"]] = Call(int(line["number"]), str(line["script"]), submission_of(line, job=""))
        elif line.get("event") in ("submitted", "void"):
            found.pop(line.get("number"), None)
    return list(found.values())


def _append(directory: Path, line: dict[str, Any]) -> None:
    """One line, of which nothing is lost with the power; what a killed command has left unfinished is ended first."""
    path = directory / SUBMISSIONS_FILE
    descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        start = "" if read_tail(path, 1) in (b"", b"\n") else "\n"
        data = f"{start}{json.dumps(line)}\n".encode()
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(directory: Path) -> int:
    try:
        return (directory / SUBMISSIONS_FILE).lstat().st_size
    except FileNotFoundError:
        return 0


def _another(directory: Path) -> ConfigurationError:
    return ConfigurationError(
        f"run_dir must be submitted by one command at a time, but another one submits from {directory} at this moment: "
        "look at `hpc status` when it is done, and try again."
    )

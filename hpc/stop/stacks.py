"""Where is each rank of this node? Python's stacks of all its threads, also where Python itself cannot run any more.

Each rank lets `faulthandler`, which is written in C and waits for no lock, answer STACKS_SIGNAL by writing them into
its pulse's file. A process that is stopped is let go on for that, and one that does not answer is told of by what the
kernel says of it, and by py-spy where that is installed.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from hpc.files import create, make_directory, open_to_read
from hpc.run.directory import RunDirectory
from hpc.run.pulse import RECORD_BYTES, Pulse, process_began
from hpc.stop.hang import STOPPED

STACKS_SIGNAL = getattr(signal, "SIGRTMIN", 0) + 7
"""A number that neither Slurm nor NCCL, Python or a terminal sends. Without real-time signals (macOS) there is none."""
ANSWER_SECONDS = 3.0
SPY_SECONDS = 10.0


def answer_with_stacks(descriptor: int) -> None:
    """From here on STACKS_SIGNAL makes this process write its stacks there."""
    if hasattr(signal, "SIGRTMIN"):
        faulthandler.register(STACKS_SIGNAL, file=descriptor, all_threads=True)


def no_more_stacks() -> None:
    """The file is going to be closed."""
    if hasattr(signal, "SIGRTMIN"):
        faulthandler.unregister(STACKS_SIGNAL)


def is_here(pulse: Pulse, host: str) -> bool:
    """Whether that very process runs on this node, which ranks call `host`, in sight."""
    return pulse.host == host and 0 < pulse.pid_began == process_began(pulse.pid)


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does, "" where there is none: T is stopped, D cannot be interrupted."""
    return _of_kernel(pid, "stat").rpartition(")")[2].strip()[:1]


def is_traced(pid: int) -> bool:
    """Whether a debugger is attached to it."""
    return _field(pid, "TracerPid") not in ("", "0")


def write_stacks(directory: Path, path: Path, ranks: Iterable[Pulse], host: str) -> None:
    """Ask every rank of this node for its stacks, and keep them in one file, unless another rank has begun it.

    Args:
        directory: The run directory.
        path: Of the new file.
        ranks: What they told last; those that are elsewhere are passed over.
        host: What ranks call this node.

    Raises:
        OSError: It exists, or the file system says no.
    """
    near = sorted((pulse for pulse in ranks if is_here(pulse, host)), key=lambda pulse: pulse.rank)
    make_directory(path.parent)
    with create(path) as file:
        found = {pulse.pid: _of_process(pulse) for pulse in near}
        stacks = _asked(directory, near)
        for pulse in near:
            text = stacks.get(pulse.pid) or _spied(pulse.pid) or "It did not answer with its stacks.\n"
            where = f"rank {pulse.rank} on {pulse.host}, process {pulse.pid}: {pulse.phase}, after step {pulse.step}"
            file.write(f"{where}\n{found[pulse.pid]}{text}\n".encode(errors="backslashreplace"))


def _asked(directory: Path, ranks: list[Pulse]) -> Mapping[int, str]:
    paths = {pulse.pid: RunDirectory(directory).pulse(pulse.rank) for pulse in ranks}
    before = {pid: len(_stacks_in(path)) for pid, path in paths.items()}
    for pulse in ranks:
        if _catches(pulse.pid):
            with suppress(OSError):
                is_stopped = state_of(pulse.pid) == STOPPED
                os.kill(pulse.pid, STACKS_SIGNAL)
                if is_stopped:
                    os.kill(pulse.pid, signal.SIGCONT)
    deadline, after = time.monotonic() + ANSWER_SECONDS, dict.fromkeys(paths, "")
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = {pid: _stacks_in(path)[before[pid] :] for pid, path in paths.items()}
        if now == after and all(now.values()):
            break
        after = now
    return after


def _stacks_in(path: Path) -> str:
    with suppress(OSError), open_to_read(path) as file:
        return os.pread(file.fileno(), 1 << 20, RECORD_BYTES).decode(errors="replace")
    return ""


def _catches(pid: int) -> bool:
    """Whether it has a handler for the signal, which would end it otherwise."""
    caught = _field(pid, "SigCgt")
    return bool(caught) and bool(int(caught, 16) >> (STACKS_SIGNAL - 1) & 1)


def _of_process(pulse: Pulse) -> str:
    waits, stack = _of_kernel(pulse.pid, "wchan"), _of_kernel(pulse.pid, "stack")
    lines = [f"State: {_field(pulse.pid, 'State')}", f"waits in the kernel in: {waits}" if waits else "", stack]
    return "".join(f"{line.rstrip()}\n" for line in lines if line)


def _field(pid: int, name: str) -> str:
    lines = _of_kernel(pid, "status").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")


def _of_kernel(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it is gone, or this is for root alone
        return ""


def _spied(pid: int) -> str:
    spy = shutil.which("py-spy")
    if spy is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        command = [spy, "dump", "--nonblocking", "--pid", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SPY_SECONDS, check=False).stdout
    return ""

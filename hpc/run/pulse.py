"""What is each rank doing? It tells every second in a small file of its own: its step, its phase, and since when.

    pulses/rank_3.txt     a line of JSON, filled up with spaces to RECORD_BYTES; then stacks, where they were asked for

The newest attempt's file takes the place of the one before. A rank that is killed leaves what it told last, at most a
second before; one that is stopped, or whose Python is held by something written in C, leaves a `time` that grows old.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc.files import make_directory, open_regular, open_to_read, replacing
from hpc.run.directory import RunDirectory

RECORD_BYTES = 1024
"""Every record has this size, so that one write replaces the one before."""
DIRECTORY = RunDirectory(Path()).pulses.name


@dataclass(frozen=True)
class Pulse:
    """What one rank was doing. Times are seconds since the epoch, by the clock of its node.

    Args:
        attempt: Its id.
        rank: Of the process.
        host: The node, by the name that Slurm has for it, or else its own.
        pid: Of the process, on that node.
        pid_began: When the process began, in the kernel's ticks since boot: a later process of that number has another.
        step: Optimizer steps taken; in the phase `training`, the rank is in the one after.
        phase: building, restoring, data, first step, training, saving, evaluating, ending, or what the user calls it.
        time: When this was told.
        phase_began: Since when it is in that phase.
        step_began: Since when it has taken as many steps, to the second.
        moved: When its main thread was last seen to go on, to the second.
        longest_seconds: The longest time between two steps of this attempt so far.
        own_seconds: What it needs for its own part of a step, before it waits for others; 0.0 while that is not known.
    """

    attempt: str
    rank: int
    host: str
    pid: int
    pid_began: int
    step: int
    phase: str
    time: float
    phase_began: float
    step_began: float
    moved: float
    longest_seconds: float = 0.0
    own_seconds: float = 0.0


class PulseFile:
    """Where one rank tells what it does; the file of the attempt before is replaced.

    Args:
        directory: The run directory.
        rank: This one.

    Raises:
        OSError: The file system says no.
    """

    def __init__(self, directory: Path, rank: int) -> None:
        path = RunDirectory(directory).pulse(rank)
        make_directory(path.parent)
        with replacing(path, durable=False) as file:
            file.write(b" " * (RECORD_BYTES - 1) + b"\n")
        self.descriptor = open_regular(path, os.O_RDWR)
        """Stacks go to its end; see `hpc.stop.stacks`."""
        os.lseek(self.descriptor, RECORD_BYTES, os.SEEK_SET)

    def write(self, pulse: Pulse) -> None:
        """Tell it in place of what was told before.

        Raises:
            OSError: The file system says no, as where a later attempt has replaced the file from another node.
        """
        line = json.dumps(asdict(pulse)).encode()[: RECORD_BYTES - 1]
        os.pwrite(self.descriptor, line.ljust(RECORD_BYTES - 1) + b"\n", 0)
        os.close(os.dup(self.descriptor))  # on NFS, closing is what shows it to other nodes; elsewhere it does nothing

    def close(self) -> None:
        """What was told last stays."""
        os.close(self.descriptor)


def read_pulses(directory: str | Path, attempt: str = "", ranks: Collection[int] = ()) -> dict[int, Pulse]:
    """What each rank told last; a rank that has told nothing, or nothing that can be read, is left out.

    Args:
        directory: The run directory.
        attempt: Only of this attempt; "" takes each rank's newest.
        ranks: Only these; all of them when none is named.
    """
    folder, names = f"{directory}/{DIRECTORY}", [RunDirectory(Path()).pulse(rank).name for rank in ranks]
    with suppress(OSError):
        names = names or [path.name for path in Path(folder).iterdir()]
    told = [pulse for name in names if (pulse := _read(f"{folder}/{name}")) and attempt in ("", pulse.attempt)]
    return {pulse.rank: pulse for pulse in sorted(told, key=lambda each: each.rank)}


def process_began(pid: int) -> int:
    """When a process began, in the kernel's ticks since boot; 0 where that is not known. See proc_pid_stat(5)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _read(path: str) -> Pulse | None:
    for _ in range(2):  # the first look may fall into a write
        try:
            with open_to_read(path) as file:
                return _pulse_of(json.loads(file.read(RECORD_BYTES)))
        except OSError:
            return None
        except (ValueError, TypeError, RecursionError):
            time.sleep(0.001)
    return None


def _pulse_of(told: Mapping[str, object]) -> Pulse:
    """Whoever may write into the directory may have written anything.

    Raises:
        TypeError: It is no pulse.
    """
    pulse = Pulse(**{name: told[name] for name in Pulse.__dataclass_fields__ if name in told})  # type: ignore[arg-type]
    for name, each in Pulse.__dataclass_fields__.items():
        kinds: tuple[type, ...] = {"str": (str,), "int": (int,), "float": (int, float)}[str(each.type)]
        if not isinstance(getattr(pulse, name), kinds):
            raise TypeError(f"{name} is {getattr(pulse, name)!r}")
    return pulse

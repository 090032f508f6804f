"""Is this directory, as this node sees it, a place for a run? What is tried leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding
from hpc.files import create, flush_directory, replace_text

SKEW_SECONDS = 5.0
FEW = 0.1
"""Less of the inodes or bytes than this share is few."""
POINT_FILES = 40
"""A point of a sweep and its checkpoints are about so many files."""


def file_system(directory: Path) -> Iterator[Finding]:
    """Files appear whole, under one owner, and last: what a checkpoint is committed by."""
    try:
        with tempfile.TemporaryDirectory(prefix=".hpc-doctor-", dir=directory) as name:
            missing = list(_missing(Path(name)))
    except OSError as error:
        advice = "Set run_dir to a directory that you may write to, on a file system that the nodes share."
        yield Finding("file_system", PROBLEM, f"{directory} cannot be written: {error.strerror}.", advice)
        return
    if missing:
        advice = "Put run_dir on another file system."
        yield Finding("file_system", PROBLEM, f"The file system of {directory} lacks {', '.join(missing)}.", advice)
    else:
        yield Finding("file_system", OK, f"Files in {directory} are replaced in one step, made once, and durable.")


def _missing(directory: Path) -> Iterator[str]:
    file = directory / "file"
    replace_text(file, "old")
    with file.open() as before:
        replace_text(file, "new")
        if (before.read(), file.read_text()) != ("old", "new"):
            yield "an atomic rename"
    try:
        create(file).close()
        yield "exclusive creation (O_EXCL)"
    except FileExistsError:
        pass
    try:
        flush_directory(directory)
    except OSError:
        yield "fsync of directories"


def clock(directory: Path) -> Iterator[Finding]:
    """Whether this node and the file server agree on the time. Nothing is decided by it: people compare the times."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".hpc-doctor-", dir=directory) as file:
            before = time.time()
            os.utime(file.fileno())  # now, by the clock of the server
            skew = os.fstat(file.fileno()).st_mtime - before
    except OSError:
        return
    if abs(skew) > SKEW_SECONDS:
        text = f"The clock of the file server is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this node's."
        yield Finding("clock", NOTE, text, "Times of files and of log lines differ so much; steps decide, not times.")
    else:
        yield Finding("clock", OK, "This node and the file server agree on the time.")


def room(directory: Path) -> Iterator[Finding]:
    """How many files and bytes are free, for everybody and for this user."""
    found = os.statvfs(directory)
    if found.f_files and found.f_favail < FEW * found.f_files:
        text = (
            f"The file system has {found.f_favail:,} inodes left, enough for {found.f_favail // POINT_FILES:,} points."
        )
        yield Finding("room", NOTE, text, "Delete old runs, or set run_dir elsewhere.")
    free = found.f_bavail * found.f_frsize
    level = NOTE if found.f_bavail < FEW * found.f_blocks else OK
    advice = "Let checkpoint.keep be small, or set run_dir elsewhere." if level == NOTE else ""
    yield Finding("room", level, f"{free / 1e9:,.0f} GB are free in {directory}.", advice)


def quota(directory: Path) -> Iterator[Finding]:
    """How many files this user may still make, where the command of that name is there."""
    del directory
    if shutil.which("quota") is None:
        return
    try:
        asked = subprocess.run(
            ["quota", "--no-wrap", "--raw-grace"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in asked.stdout.splitlines():
        cells = line.replace("*", "").split()
        if len(cells) == 9 and all(cell.isdigit() for cell in cells[1:]):
            yield from _quota(cells[0], used=int(cells[5]), limit=int(cells[6]) or int(cells[7]))


def _quota(name: str, used: int, limit: int) -> Iterator[Finding]:
    if not limit:
        return
    left = max(0, limit - used)
    level = PROBLEM if left < POINT_FILES else NOTE if left < FEW * limit else OK
    advice = "" if level == OK else "Delete old runs, or set run_dir elsewhere."
    text = f"Your quota on {name} leaves {left:,} of {limit:,} files, enough for {left // POINT_FILES:,} points."
    yield Finding("quota", level, text, advice)


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (file_system, clock, room, quota)

"""How a checkpoint becomes visible, and which one is to be trusted.

    step_00001200.tmp-<token>/  files written, flushed to disk, hashed on the way
    manifest.json               last of all: every file's size and checksum
    fence                       still ours? then
    step_00001200/              one rename, and the directory flushed

A reader sees whole directories only. A damaged one is named and passed over for the one before. torch.load accepts
flipped bits and zeroed pages inside tensor data without a word (torch 2.13), hence the checksums.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import xxhash

from hpc.errors import SaveError

MANIFEST_FILE = "manifest.json"
FENCE_FILE = "fence"
STEP_NAME = re.compile(r"step_(\d{8,})")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A complete directory.

    Args:
        directory: Named `step_<8 digits>`.
        step: Optimizer steps taken when it was saved.
    """

    directory: Path
    step: int


class HashingWriter:
    """A binary file that knows the checksum of what went through it, so that nothing is read back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.bytes = 0
        self._hash = xxhash.xxh3_128()

    def write(self, data: bytes) -> int:
        """Write and hash; returns the number of bytes."""
        self._hash.update(data)
        self.bytes += len(memoryview(data).cast("B"))
        return self.file.write(data)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self.file.flush()

    def entry(self) -> dict[str, object]:
        """What the manifest says of this file."""
        return {"bytes": self.bytes, "xxh3_128": self._hash.hexdigest()}


Writers = dict[str, Callable[[HashingWriter], None]]
"""File name -> what writes it."""


class CheckpointStore:
    """The checkpoints of one point. Rank 0 alone writes through it.

    Args:
        directory: The `checkpoints` directory; created by the first commit.
        keep: How many of the newest stay.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self.token = ""

    def acquire(self) -> None:
        """Become the only life of this point that may commit: an older one that still runs is fenced off."""
        self.token = secrets.token_hex(8)
        with _explained(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            _write_durably(self.directory / FENCE_FILE, self.token.encode())
            for leftover in self.directory.glob("step_*.tmp-*"):
                shutil.rmtree(leftover)

    def commit(self, step: int, writers: Writers) -> Checkpoint:
        """Write every file and make the directory visible, all or nothing.

        Args:
            step: Names the checkpoint; one that is there already is left as it is.
            writers: What goes into it.

        Raises:
            SaveError: It could not be made durable, or a newer life of this point has taken over.
        """
        final = self.directory / f"step_{step:08d}"
        if final.exists():
            return Checkpoint(final, step)
        temporary = final.with_name(f"{final.name}.tmp-{self.token}")
        try:
            with _explained(temporary):
                self._write(temporary, step, writers)
                self._check_fence()
                temporary.rename(final)
                _flush_directory(self.directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._prune()
        return Checkpoint(final, step)

    def list(self) -> list[Checkpoint]:
        """Complete checkpoints, newest first; whether they can be trusted is `damage`'s question."""
        found = [(STEP_NAME.fullmatch(path.name), path) for path in self.directory.glob("step_*")]
        complete = [Checkpoint(path, int(name[1])) for name, path in found if name and (path / MANIFEST_FILE).exists()]
        return sorted(complete, key=lambda checkpoint: -checkpoint.step)

    def latest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose every byte is as it was written.

        Args:
            report: Told about each one that is passed over.
        """
        for checkpoint in self.list():
            problem = damage(checkpoint)
            if problem is None:
                return checkpoint
            report(f"{checkpoint.directory} is passed over: {problem}.")
        return None

    def _write(self, temporary: Path, step: int, writers: Writers) -> None:
        temporary.mkdir()
        files = {name: _write_file(temporary / name, write) for name, write in writers.items()}
        manifest = {"step": step, "token": self.token, "files": files}
        _write_durably(temporary / MANIFEST_FILE, json.dumps(manifest, indent=1).encode())
        _flush_directory(temporary)

    def _check_fence(self) -> None:
        if (self.directory / FENCE_FILE).read_text() != self.token:
            raise SaveError(
                f"{self.directory} must be written by the newest life of this point, but a newer one has started: "
                "this one stops without committing."
            )

    def _prune(self) -> None:
        for old in self.list()[self.keep :]:
            (old.directory / MANIFEST_FILE).unlink()  # invisible first, then gone
            shutil.rmtree(old.directory, ignore_errors=True)


def damage(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint, or None: every file is there with the size and checksum it was written with."""
    try:
        manifest = json.loads((checkpoint.directory / MANIFEST_FILE).read_bytes())
        files = {str(name): (int(entry["bytes"]), str(entry["xxh3_128"])) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST_FILE} cannot be read ({error})"
    problems = (_file_damage(checkpoint.directory / name, *entry) for name, entry in files.items())
    return next((problem for problem in problems if problem), None)


def _file_damage(path: Path, size: int, checksum: str) -> str | None:
    if not path.exists():
        return f"{path.name} is missing"
    if path.stat().st_size != size:
        return f"{path.name} should have {size} bytes and has {path.stat().st_size}"
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return None if digest.hexdigest() == checksum else f"{path.name} does not have the checksum it was written with"


def _write_file(path: Path, write: Callable[[HashingWriter], None]) -> dict[str, object]:
    with path.open("xb") as file:
        writer = HashingWriter(file)
        write(writer)
        file.flush()
        os.fsync(file.fileno())
    return writer.entry()


def _write_durably(path: Path, data: bytes) -> None:
    """All of it or nothing, also after a power cut."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush_directory(path.parent)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Torch's zip writer answers a full disk with a RuntimeError (torch 2.13): both mean the same to us."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise SaveError(f"{directory} could not be written: {str(error).splitlines()[0]}.") from error

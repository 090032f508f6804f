"""How does a checkpoint become visible, and which ones are there?

    step_00001200.tmp-<token>/  every rank's files, written, hashed on the way, flushed to disk
    manifest.json               last of all: every file's size and checksum, every tensor's whereabouts
    fence                       still ours? then
    step_00001200/              one rename, and the directory flushed

A reader sees whole directories only. torch.load accepts flipped bits and zeroed pages inside tensor data without a
word (torch 2.13), hence the checksums.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc.checkpoint.files import explained
from hpc.checkpoint.manifest import MANIFEST_FILE, Manifest
from hpc.checkpoint.ours import FENCE_FILE, PUBLISHED, is_leftover, is_ours
from hpc.checkpoint.reading import DamagedError, file_damage
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.untrusted import parsed, read_manifest
from hpc.errors import SaveError
from hpc.failpoints import failpoint
from hpc.files import DIRECTORY_MODE, create, flush_directory, make_directory, read_regular, replace_bytes

NEWEST_TWO = Retention()


@dataclass(frozen=True)
class Checkpoint:
    """A complete directory.

    Args:
        directory: Named `step_<8 digits>`.
        step: Optimizer steps taken when it was saved.
    """

    directory: Path
    step: int


class CheckpointStore:
    """The checkpoints of one point. Rank 0 alone begins, publishes and prunes.

    Args:
        directory: The `checkpoints` directory; created by `acquire`.
        retention: What stays.
    """

    def __init__(self, directory: Path, retention: Retention = NEWEST_TWO) -> None:
        self.directory = directory
        self.retention = retention
        self.token = ""
        self.verified_step: int | None = None

    def acquire(self) -> None:
        """Become the only life of this point that may commit: an older one that still runs is fenced off.

        Leftovers are renamed before they are removed, so that a save which an older life is about to publish is either
        published whole by now or never. What is named or filled otherwise than a save does it stays.
        """
        self.token = secrets.token_hex(8)
        with explained(self.directory):
            make_directory(self.directory)
            replace_bytes(self.directory / FENCE_FILE, self.token.encode())
            for leftover in [path for path in self.directory.iterdir() if is_leftover(path)]:
                self._remove(leftover)

    def list(self) -> list[Checkpoint]:
        """Complete checkpoints, newest first; whether they can be trusted is `damage`'s question.

        A link that is named like one is among them, and is nothing that can be trusted.
        """
        found = [(PUBLISHED.fullmatch(path.name), path) for path in self.directory.glob("step_*")]
        complete = [Checkpoint(path, int(name[1])) for name, path in found if name and _is_complete(path)]
        return sorted(complete, key=lambda checkpoint: -checkpoint.step)

    def latest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint whose every byte is as it was written.

        Args:
            report: Told about each one that is passed over.
        """
        for checkpoint in self.list():
            problems = damage(checkpoint)
            if not problems:
                return checkpoint
            report(passed_over(checkpoint, problems))
        return None

    def begin(self, step: int) -> Path:
        """An empty directory for the files of a checkpoint; its name shows that it is not one yet.

        Raises:
            SaveError: It could not be made.
        """
        temporary = self.directory / f"step_{step:08d}.tmp-{self.token}"
        with explained(self.directory):
            shutil.rmtree(temporary, ignore_errors=True)  # a save that failed and could not even clean up
            temporary.mkdir(DIRECTORY_MODE)
        return temporary

    def publish(self, temporary: Path, manifest: Manifest) -> Checkpoint:
        """Make the directory a checkpoint in one step, and delete older ones that the retention does not keep.

        A checkpoint of the same step that is there already stays if this life has committed it; otherwise it is one
        that could not be loaded, and makes way; where it is none of ours, it is put aside.

        Raises:
            SaveError: It could not be made durable, or a newer life of this point has taken over.
        """
        final = temporary.with_name(f"step_{manifest.step:08d}")
        content = _readable(manifest)
        with explained(self.directory):
            with create(temporary / MANIFEST_FILE) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            flush_directory(temporary)
            failpoint("manifest_flushed", 0)
            self._check_fence()
            failpoint("fence_checked", 0)
            if self._has_committed(final):
                return Checkpoint(final, manifest.step)
            if not self._remove(final) and os.path.lexists(final):
                final.rename(final.with_name(f"{final.name}.kept-{secrets.token_hex(4)}"))
            temporary.rename(final)
            failpoint("renamed", 0)
            flush_directory(self.directory)
        failpoint("committed", 0)
        self._prune(manifest.step)
        return Checkpoint(final, manifest.step)

    def discard(self, temporary: Path) -> None:
        """Remove what was begun and will not be published."""
        shutil.rmtree(temporary, ignore_errors=True)

    def _check_fence(self) -> None:
        if not self._owned():
            raise SaveError(
                f"{self.directory} must be written by the newest life of this point, but a newer one has started: "
                "this one stops without committing."
            )

    def _owned(self) -> bool:
        return read_regular(self.directory / FENCE_FILE) == self.token.encode()

    def _has_committed(self, final: Path) -> bool:
        try:
            return read_manifest(final).token == self.token
        except DamagedError:
            return False

    def _prune(self, newest: int) -> None:
        """Drop what the retention does not keep.

        The one just committed stays in any case, and so does the newest that was read back and found whole: newer ones
        may be there that cannot be loaded.
        """
        checkpoints = {each.step: each for each in self.list() if not each.directory.is_symlink()}
        kept = self.retention.kept([*checkpoints], lambda step: metrics_of(checkpoints[step]))
        for step in checkpoints.keys() - kept - {self.verified_step, newest}:
            self._remove(checkpoints[step].directory)

    def _remove(self, directory: Path) -> bool:
        """Rename it, so that no reader sees half of it, then delete it; returns whether it is gone.

        What is named or filled otherwise than a save does it is not touched, and no link is.
        """
        if not is_ours(directory):
            return False
        trash = directory.with_name(f"removed-{directory.name.split('.')[0]}.tmp-{secrets.token_hex(4)}")
        try:
            directory.rename(trash)
        except FileNotFoundError:  # another process has done so already
            return True
        failpoint("pruning", 0)
        shutil.rmtree(trash, ignore_errors=True)
        return True


def _is_complete(directory: Path) -> bool:
    return directory.is_symlink() or os.path.lexists(directory / MANIFEST_FILE)


def _readable(manifest: Manifest) -> bytes:
    """The content of manifest.json; what cannot be read back must not be taken for a checkpoint.

    Raises:
        SaveError: It cannot.
    """
    content = manifest.to_bytes()
    try:
        parsed(content)
    except ValueError as error:
        raise SaveError(f"{MANIFEST_FILE} of step {manifest.step} could not be read back: {error}.") from error
    return content


def passed_over(checkpoint: Checkpoint, problems: list[str]) -> str:
    """The sentence about a checkpoint that is not loaded."""
    return f"{checkpoint.directory} is passed over: {', '.join(problems)}."


def damage(checkpoint: Checkpoint) -> list[str]:
    """What is wrong with a checkpoint; nothing when all files have the size and checksum they were written with."""
    try:
        files = read_manifest(checkpoint.directory).written.files
    except DamagedError as error:
        return [str(error)]
    problems = (file_damage(checkpoint.directory, name, entry) for name, entry in files.items())
    return [problem for problem in problems if problem]


def metrics_of(checkpoint: Checkpoint) -> dict[str, float]:
    """What was logged when a checkpoint was saved; nothing when it does not say."""
    try:
        return read_manifest(checkpoint.directory).metrics
    except DamagedError:
        return {}

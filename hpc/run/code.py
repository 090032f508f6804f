"""Where does the code of a submission lie in its sweep's directory, and what is known of it?

    code-1f2e3d4c5b6a7980.zip    the files, in one: sites count inodes. The same code is the same file (a hard link)
    code.jsonl                   a line for each submission: which archive, commit, differences, installed versions
    files/                       what settings name, such as strategy.deepspeed_config

A job has the archive's digest in its own script, and refuses another one: see `hpc.run.enter`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.errors import LoadError
from hpc.files import PRIVATE_MODE, create, flush_directory, open_to_append, read_regular, replace_text
from hpc.run.enter import ENTER, MANIFEST

CODE_FILE = "code.jsonl"
FILES = "files"
POINTS = "points"
"""In a line of code.jsonl: the points that the submission was about. All of them where it is left out."""


@dataclass(frozen=True)
class Code:
    """What one submission runs.

    Args:
        record: The line about it.
        tree: Hash of the names, modes and contents; "" where everything was installed, and nothing was copied.
        digest: SHA-256 of the archive.
        data: The archive, where it was made or read just now.
        twin: A file that holds the same bytes, where one is known.
        files: Below files/: what settings name.
        is_stored: Whether it lies in the sweep's directory already.
        note: Where to note the archive for the next submission of the same projects; it may be missing at any time.
    """

    record: Mapping[str, Any]
    tree: str = ""
    digest: str = ""
    data: bytes = field(default=b"", repr=False, compare=False)
    twin: Path | None = field(default=None, repr=False, compare=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    is_stored: bool = field(default=False, compare=False)
    note: Path | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The archive's, in the sweep's directory."""
        return f"code-{self.tree[:16]}.zip"

    def write(self, directory: Path, made: list[Path]) -> None:
        """Put everything into the sweep's directory; what is there already stays.

        Args:
            directory: Must exist.
            made: Gets what was not there before.

        Raises:
            OSError: The file system says no.
        """
        if self.is_stored:
            return
        if self.tree and not _holds(directory / self.name, self.digest):
            self._write_archive(directory / self.name, made)
        if self.files:
            _make(directory / FILES, made)
        for name, content in self.files.items():
            if not (directory / FILES / name).exists():
                _create(directory / FILES / name, content, made)
        self._tell(directory / CODE_FILE, made)
        flush_directory(directory)
        with suppress(OSError):  # a cache that cannot be written is no cache
            self._remember(directory / self.name)

    def _remember(self, archive: Path) -> None:
        if self.note is not None:
            self.note.parent.mkdir(0o700, parents=True, exist_ok=True)
            text = json.dumps({"tree": self.tree, "digest": self.digest, "archive": str(archive)})
            replace_text(self.note, text)

    def _write_archive(self, path: Path, made: list[Path]) -> None:
        path.unlink(missing_ok=True)
        try:
            if self.twin is None:
                raise FileNotFoundError
            os.link(self.twin, path, follow_symlinks=False)
            made.append(path)
        except OSError:  # it is gone, or on another file system
            _create(path, self.data, made)

    def _tell(self, path: Path, made: list[Path]) -> None:
        is_new = not os.path.lexists(path)
        with open_to_append(path, PRIVATE_MODE) as file:
            made.extend([path] if is_new else [])
            file.write((json.dumps({"tree": self.tree, "digest": self.digest, **self.record}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def submitted(directory: Path) -> list[Code]:
    """What the sweep's submissions ran, oldest first; none where nothing was recorded.

    Raises:
        LoadError: The file cannot be read, or is damaged.
    """
    path = directory / CODE_FILE
    try:
        lines = read_regular(path).decode().splitlines() if os.path.lexists(path) else []
        return [_code(json.loads(line)) for line in lines]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(f"{path} is damaged ({error}): restore it.") from error


def code_of_point(directory: Path, point: str) -> Code | None:
    """What a point's newest submission runs; None where nothing was recorded.

    Args:
        directory: The sweep's.
        point: Its name.

    Raises:
        LoadError: The file cannot be read, or is damaged.
    """
    told = reversed(submitted(directory))
    return next((code for code in told if point in code.record.get(POINTS, (point,))), None)


def archive_bytes(directory: Path, code: Code) -> bytes:
    """The archive of a submission.

    Raises:
        LoadError: It is gone, or damaged.
    """
    path = directory / code.name
    try:
        data = read_regular(path)
        reason = "" if hashlib.sha256(data).hexdigest() == code.digest else "it has changed since"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise LoadError(f"{path} must hold the code that was submitted, but does not ({reason}): restore it.")
    return data


def read_code(directory: Path, code: Code) -> dict[str, bytes]:
    """The files of an archive by their paths, without links that lead out of it: those are to data.

    Raises:
        LoadError: The archive is gone, or damaged.
    """
    with zipfile.ZipFile(io.BytesIO(archive_bytes(directory, code))) as archive:
        members = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    return {
        name: content
        for name, (info, content) in members.items()
        if name not in (MANIFEST, ENTER) and not (stat.S_ISLNK(info.external_attr >> 16) and content.startswith(b"/"))
    }


def entered() -> tuple[Path, str] | None:
    """The archive that this process runs from, and its digest, as its own command line names them; else None."""
    words = sys.orig_argv
    position = words.index("-c") if "-c" in words else len(words)
    found = words[position + 2 : position + 4]
    if len(found) < 2 or not Path(found[0]).name.startswith("code-") or not found[0].endswith(".zip"):
        return None
    return Path(found[0]), found[1]


def _code(line: dict[str, Any]) -> Code:
    tree, digest = str(line.pop("tree")), str(line.pop("digest"))
    return Code(line, tree, digest, is_stored=True)


def _holds(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(read_regular(path)).hexdigest() == digest
    except OSError:
        return False


def _make(directory: Path, made: list[Path]) -> None:
    try:
        directory.mkdir(0o700)
        made.append(directory)
    except FileExistsError:
        pass


def _create(path: Path, content: bytes, made: list[Path]) -> None:
    """A file that was not there, for its owner alone."""
    with create(path, PRIVATE_MODE) as file:
        made.append(path)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

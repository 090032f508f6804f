"""What in a directory of checkpoints has a save made? Nothing else there may be deleted, and no link is followed.

fence                                 whose turn it is
step_00001200/                        a checkpoint
step_00001200.tmp-<token>/            a save under way, or what is left of one
removed-step_00001200.tmp-<token>/    one that is being deleted
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from hpc.checkpoint.manifest import MANIFEST_FILE, TRAINER_FILE
from hpc.checkpoint.reading import DamagedError
from hpc.checkpoint.untrusted import read_manifest

FENCE_FILE = "fence"
PUBLISHED = re.compile(r"step_(\d{8,18})")
_LEFTOVER = re.compile(r"(removed-)?step_\d{8,18}\.tmp-[0-9a-f]{1,32}")
_FILE = re.compile(r"(model|optimizer|others)(_\d+)?(\.rank_\d{5,})?\.safetensors|trainer\.pt|manifest\.json(\.tmp)?")


def is_leftover(directory: Path) -> bool:
    """Whether a name is one that only a save that has ended before its time can have left."""
    return _LEFTOVER.fullmatch(directory.name) is not None


def is_ours(directory: Path) -> bool:
    """Whether a directory is named as a save names one, and holds nothing but what a save writes.

    A checkpoint may hold what its manifest names. Where there is none, an engine's folder counts as written by a save
    when a trainer.pt is beside it.
    """
    if not (is_leftover(directory) or PUBLISHED.fullmatch(directory.name)):
        return False
    found = _files(directory)
    if found is None:
        return False
    known = _named(directory)
    if known is not None:
        return found <= known
    others = [name for name in found if not _FILE.fullmatch(name)]
    return not others or (TRAINER_FILE in found and all("/" in name for name in others))


def _named(directory: Path) -> set[str] | None:
    """What the manifest names; None where it cannot be followed."""
    try:
        return {MANIFEST_FILE, *read_manifest(directory).written.files}
    except DamagedError:
        return None


def _files(directory: Path) -> set[str] | None:
    """All files, by their names below the directory; None where there is a link, or something that is no file."""
    found: set[str] = set()
    folders = [(directory, "")]
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            return None
        while folders:
            folder, prefix = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((Path(entry.path), f"{prefix}{entry.name}/"))
                    elif entry.is_file(follow_symlinks=False):
                        found.add(prefix + entry.name)
                    else:
                        return None
    except OSError:
        return None
    return found

"""Which sweeps has this user submitted, and where? A line for each, in the user's state directory.

The file belongs to the user alone (0600). It is a convenience: a sweep that is not in it is found by its path.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpc.files import PRIVATE_MODE, append_text
from hpc.run.json_lines import json_objects
from hpc.run.listing import is_sweep


@dataclass(frozen=True)
class Recorded:
    """A sweep that was submitted.

    Args:
        directory: Absolute.
        time: When it was submitted first, in seconds since the epoch.
    """

    directory: Path
    time: float


def index_path(environ: Mapping[str, str]) -> Path:
    """Where the list lies: $XDG_STATE_HOME/hpc/sweeps.jsonl, or below ~/.local/state (XDG Base Directory 0.8).

    Args:
        environ: A relative $XDG_STATE_HOME is not used, as that specification asks.
    """
    asked = Path(environ.get("XDG_STATE_HOME", ""))
    state = asked if asked.is_absolute() else Path(environ.get("HOME", "/")) / ".local" / "state"
    return state / "hpc" / "sweeps.jsonl"


def record_sweep(directory: Path, environ: Mapping[str, str]) -> None:
    """Add a sweep to the list; a home directory that cannot be written keeps nothing from being submitted."""
    path = index_path(environ)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        append_text(path, json.dumps({"directory": str(directory), "time": round(time.time(), 3)}) + "\n", PRIVATE_MODE)


def recorded_sweeps(environ: Mapping[str, str]) -> list[Recorded]:
    """The sweeps of the list whose directories are still there, oldest first."""
    first: dict[Path, float] = {}
    with suppress(OSError):
        for told in json_objects(index_path(environ)):
            with suppress(ValueError, TypeError, LookupError):
                first.setdefault(Path(told["directory"]), float(told["time"]))
    return [Recorded(directory, when) for directory, when in first.items() if _is_there(directory)]


def _is_there(directory: Path) -> bool:
    try:
        return is_sweep(directory)
    except (OSError, ValueError):
        return False

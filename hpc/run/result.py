"""What did a finished run return? Its value lies in finished.json, and its being there is what finished means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import LoadError, SaveError
from hpc.files import read_regular, replace_text
from hpc.run.directory import RunDirectory


@dataclass(frozen=True)
class Result:
    """A run that is finished.

    Args:
        value: What the training function returned, as JSON has it.
    """

    value: Any


def write_result(directory: Path, value: Any) -> None:
    """Mark a run as finished, for good.

    Args:
        directory: The run directory.
        value: As JSON has it.

    Raises:
        SaveError: It cannot be written.
    """
    path = RunDirectory(directory).finished
    try:
        replace_text(path, json.dumps({"value": value}) + "\n")
    except OSError as error:
        raise SaveError(
            f"{path} must be a file that can be written, but is not: {error.strerror}; make room there, and start the "
            "run again: it goes on from its last checkpoint."
        ) from error


def read_result(directory: Path) -> Result | None:
    """The result of a run; None while it is not finished.

    Raises:
        LoadError: finished.json is there and is not what a finished run writes.
    """
    path = RunDirectory(directory).finished
    try:
        return Result(json.loads(read_regular(path))["value"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LoadError(
            f"{path} must be what a finished run wrote, but cannot be read as that "
            f"({type(error).__name__}: {error}): remove it to train on from the last checkpoint, or choose another "
            "run_dir."
        ) from error

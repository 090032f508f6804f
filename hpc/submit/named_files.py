"""Files that settings name, such as strategy.deepspeed_config: kept with the submission, as their text is now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hpc.config import Settings
from hpc.errors import ConfigurationError
from hpc.run.code import FILES
from hpc.run.point import Point


def keep_files(directory: Path, points: Sequence[Point]) -> dict[str, bytes]:
    """Let the points name copies below the sweep's directory.

    Args:
        directory: The sweep's.
        points: Their configs and settings are changed.

    Returns:
        The copies' contents by their names below files/. Nothing is written.

    Raises:
        ConfigurationError: A file cannot be read, or is no JSON.
    """
    found: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for point in points:
        for section, option, path in _named(point.settings):
            if path not in names:
                content = _read(f"{section}.{option}", path)
                names[path] = f"{hashlib.sha256(content).hexdigest()[:12]}-{Path(path).name}"
                found[names[path]] = content
            copy = str(directory / FILES / names[path])
            point.config[section][option] = copy
            setattr(getattr(point.settings, section), option, copy)
            names[copy] = names[path]  # points may share a section
    return found


def _named(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Section, option and path of every file that is named."""
    for section in fields(settings):
        options: Any = getattr(settings, section.name)
        for option in fields(options) if is_dataclass(options) else ():
            path = getattr(options, option.name)
            if option.metadata.get("file") and path is not None:
                yield section.name, option.name, path


def _read(option: str, path: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{option} must be a file that can be read, but is {path}: {error}.") from error
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{option} must be a JSON file, but is {path}: {error}.") from error
    return content

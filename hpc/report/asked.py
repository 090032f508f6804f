"""What was asked for? Overrides, resources, and the code with its versions."""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc.errors import LoadError
from hpc.run.code import submitted
from hpc.run.stored import StoredSweep
from hpc.status.sweep import SweepStatus

LONGEST_COMMAND = 1000
"""Characters; a longer one is no help to anybody."""
HARDWARE = ("nodes", "tasks_per_node", "gpus_per_node", "gpu_type", "cpus_per_task", "memory_gb", "time_limit_minutes")
CLUSTER = ("scheduler", "partition", "account", "qos", "constraint")
MOST_RESOURCES = 8
SHOWN_FIRST = ("torch", "hpc", "hydra-core", "submitit", "numpy")
"""Versions that explain most differences."""


def asked(
    status: SweepStatus, sweep: StoredSweep, hardware: Iterable[Mapping[str, Any]], code: Mapping[str, Any]
) -> dict[str, str]:
    """By heading: what was asked for, as text.

    Args:
        status: The sweep.
        sweep: The same, on disk.
        hardware: That part of each point's config.
        code: See `code_of`.

    Raises:
        LoadError: The sweep's files are damaged.
    """
    first = sweep.point(0).config
    found = {
        "Command": _command(status),
        "Swept": ", ".join(f"{key} ({count} values)" for key, count in _swept(status).items()),
        "Resources of a point": _resources(hardware),
        "Where": _section(first.get("cluster", {}), CLUSTER),
        "Training function": str(first.get("experiment", {}).get("target", "")),
        "Submitted": _moment(code.get("time")),
        "Code": "; ".join(_project(each) for each in code.get("projects", ())),
        "Python": str(code.get("python", "")),
    }
    return {heading: text for heading, text in found.items() if text}


def versions(code: Mapping[str, Any]) -> dict[str, str]:
    """What was installed at the newest submission, by name: what matters most first.

    Args:
        code: See `code_of`.
    """
    found = code.get("versions", {})
    first = {name: found[name] for name in SHOWN_FIRST if name in found}
    return {**first, **found}


def code_of(directory: Path) -> Mapping[str, Any]:
    """What was noted of the code at the newest submission of a sweep; nothing where that cannot be read."""
    with suppress(LoadError):  # the page tells less, and not nothing
        found = submitted(directory)
        return found[-1].record if found else {}
    return {}


def _command(status: SweepStatus) -> str:
    """What may have been typed: the record has each point's overrides, and these are all combinations of the values."""
    values: dict[str, dict[str, None]] = {}
    for point in status.points:
        for key, value in point.overrides.items():
            values.setdefault(key, {})[value] = None
    if math.prod(map(len, values.values())) != len(status.points):
        return ""
    words = [f"{key}={','.join(each)}" for key, each in values.items()]
    command = shlex.join(["hpc", "run", "-m", *words])
    return command if len(command) <= LONGEST_COMMAND else ""


def _swept(status: SweepStatus) -> dict[str, int]:
    return {key: len({point.overrides.get(key) for point in status.points}) for key in status.differing}


def _resources(hardware: Iterable[Mapping[str, Any]]) -> str:
    found = Counter(_section(each, HARDWARE) for each in hardware)
    if len(found) == 1:
        return next(iter(found))
    return "; ".join(f"{text} ({count} points)" for text, count in found.most_common(MOST_RESOURCES))


def _section(section: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name}={section[name]}" for name in names if section.get(name) not in (None, ""))


def _project(project: Mapping[str, Any]) -> str:
    commit, changed = project.get("commit"), len(project.get("changed", ()))
    name = Path(str(project.get("root", ""))).name
    if not commit:
        return f"{name}, which is in no git repository"
    return f"{name} at {commit[:12]}" + (f" with {changed} changed file(s)" if changed else "")


def _moment(seconds: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if isinstance(seconds, (int, float)) else ""

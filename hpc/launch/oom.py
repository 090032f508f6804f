"""Has the kernel killed processes of this cgroup because their memory was short?"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
"""In memory.events of version 2, and in memory.oom_control of version 1."""


def oom_kills(own: Path = Path("/proc/self/cgroup"), root: Path = ROOT) -> int:
    """How many it has killed so far, in this process's cgroup and those below it; 0 where nobody counts.

    Args:
        own: Says in which cgroups this process is, as `number:controllers:path` in each line.
        root: Where cgroups are mounted.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return 0
    places = [root / path.lstrip("/") / "memory.events" for _, names, path in lines if not names]
    places += [
        root / "memory" / path.lstrip("/") / "memory.oom_control" for _, names, path in lines if "memory" in names
    ]
    return sum(_count(place) for place in places)


def _count(place: Path) -> int:
    try:
        found = COUNT.search(place.read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0

"""What do the texts say in which Slurm lists generic resources: `gpu:a100:8(S:0-1),nvme:1`?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PLACES = re.compile(r"\([^)]*\)")
COUNT = re.compile(r"(\d+)([KMGTP]?)", re.IGNORECASE)
UNITS = {unit: 1024**power for power, unit in enumerate(("", "K", "M", "G", "T", "P"))}


@dataclass(frozen=True)
class Resource:
    """One entry.

    Args:
        name: gpu, shard, mps, or whatever a site calls its own.
        kind: The type, in any spelling a site gives it; "" where it has none.
        count: How many.
    """

    name: str
    kind: str
    count: int


def resources(text: str) -> list[Resource]:
    """The entries of a gres column or of a --gres option; "(null)" and "N/A" have none."""
    return list(_entries(PLACES.sub("", text)))


def _entries(text: str) -> Iterator[Resource]:
    for entry in text.replace("N/A", "").split(","):
        name, *more = (part.strip() for part in entry.split(":"))
        if name:
            count = _count(more[-1]) if more else 1
            kinds = more if count is None else more[:-1]
            yield Resource(name.removeprefix("gres/"), ":".join(kinds), 1 if count is None else count)


def _count(text: str) -> int | None:
    """A number, with Slurm's suffix for thousands or without; None for the name of a type: 2080ti, 1g.5gb."""
    found = COUNT.fullmatch(text)
    return int(found[1]) * UNITS[found[2].upper()] if found else None

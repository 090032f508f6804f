"""How are figures taken and shown? Medians, under stated conditions, as plain rows."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The middle of repeated measurements; other work on the machine moves single ones, and moves the middle little.

    Args:
        low: With `high`, where the median of ever more measurements would lie, 19 times out of 20.
        median: Half of the measurements lie below.
        high: See `low`.
    """

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:8.3f}  ({self.low:.3f} to {self.high:.3f})"


def spread(values: Sequence[float]) -> Spread:
    """The median of independent measurements, and its interval by order statistics, which assumes nothing of them."""
    ordered = sorted(values)
    outside = max(0, math.floor(len(ordered) / 2 - 0.98 * math.sqrt(len(ordered))))
    return Spread(ordered[outside], median(ordered), ordered[-1 - outside])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, pair by pair: what was measured side by side suffered the same neighbours."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)])


def conditions() -> str:
    """One line: what the figures were taken on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = f"{os.getloadavg()[0]:.1f}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "hydra-core", "submitit"))
    return f"{cores} cores, load {busy} at the start, Python {platform.python_version()}, {packages}"


def table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A title and two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {figure}" for name, figure in rows)])

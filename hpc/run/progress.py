"""How far is a run while it trains? Rank 0 tells it every few seconds in progress.json, over what it told before.

metrics.jsonl has every step and no times; this file has the newest step, with its speed and the time that is left. It
is for those who look on, and nothing is ever resumed from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpc.files import read_regular, replacing
from hpc.run.directory import RunDirectory

PROGRESS_FILE = RunDirectory(Path()).progress.name
TELL_SECONDS = 5.0
"""Shortest time between two replacements: a job of a week then makes some 100,000 of them, a sweep of 256 points 50 a
second."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Args:
        step: Optimizer steps taken.
        total_steps: At which step the loop at hand ends.
        time: When this was told, in seconds since the epoch.
        per_second: Speed, in `unit` per second; None before it is known.
        unit: tokens or samples.
        seconds_left: Until `total_steps`, at the speed of this life; None before it is known.
        metrics: What was logged last, by name.
    """

    step: int
    total_steps: int
    time: float
    per_second: float | None = None
    unit: str = "samples"
    seconds_left: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Teller:
    """What rank 0 tells of one loop.

    Args:
        directory: The run directory.
        step: Where the loop goes on.
        total_steps: Where it ends.
    """

    def __init__(self, directory: Path, step: int, total_steps: int) -> None:
        self.path = RunDirectory(directory).progress
        self.first_step, self.total_steps = step, total_steps
        self.began = self._told = time.monotonic()
        self._write(Progress(step, total_steps, round(time.time(), 3)))

    def tell(self, step: int, per_second: float, unit: str, metrics: Mapping[str, float]) -> None:
        """Tell where the run is, unless that was done a moment ago. A disk that says no keeps nothing from training."""
        now = time.monotonic()
        if now - self._told < TELL_SECONDS and step < self.total_steps:
            return
        self._told = now
        left = (self.total_steps - step) * (now - self.began) / max(1, step - self.first_step)
        self._write(
            Progress(step, self.total_steps, round(time.time(), 3), per_second, unit, round(left, 1), dict(metrics))
        )

    def _write(self, progress: Progress) -> None:
        with suppress(OSError), replacing(self.path, durable=False) as file:  # it is told again in a moment
            file.write((json.dumps(asdict(progress)) + "\n").encode())


def read_progress(directory: str | Path) -> Progress | None:
    """What a run told last; None where it told nothing, or nothing that can be read."""
    try:
        told = json.loads(read_regular(f"{directory}/{PROGRESS_FILE}"))
        progress = Progress(**{name: told[name] for name in Progress.__dataclass_fields__ if name in told})
        numbers = (progress.step, progress.total_steps, progress.time, progress.per_second or 0.0)
        is_whole = all(isinstance(each, int | float) for each in (*numbers, progress.seconds_left or 0.0))
        return progress if is_whole and isinstance(progress.metrics, dict) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None

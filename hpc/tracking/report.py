"""What does a run tell about itself while it trains? Rank 0 tells what was logged, the speed and the memory in use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from hpc.run.progress import Teller
from hpc.tracking.metrics import Metrics, Values
from hpc.tracking.progress import Progress
from hpc.tracking.trackers import TrackedRun, Tracker, Trackers
from hpc.tracking.usage import Work, memory_gb, peak_flops

SHOW_SECONDS = 1.0
"""The shortest time between two updates of screen and trackers, because one takes 0.7 ms of CPU time."""


class Report:
    """metrics.jsonl, the progress line and the trackers of one life.

    Args:
        run: The point, and where this life goes on.
        size_bytes: Size of metrics.jsonl when that step was saved; None where it is not known.
        devices: This rank's device, and the number of ranks, each of which has one like it.
        trackers: Those to open.
        must_be_finite: Names of logged values that must be finite.
    """

    def __init__(
        self,
        run: TrackedRun,
        size_bytes: int | None,
        devices: tuple[torch.device, int],
        trackers: Sequence[Tracker],
        must_be_finite: Sequence[str],
    ) -> None:
        self.metrics = Metrics(run.directory, run.step, size_bytes, must_be_finite)
        self.latest: Values = {}
        self._progress: Progress | None = None
        self._teller: Teller | None = None
        self._trackers = Trackers(trackers, run)
        self._work = Work("samples", 1, None)
        self._samples: Callable[[], int] = int
        self._device, count = devices
        self._peak_flops = (peak_flops(self._device) or 0.0) * count
        self._first_step = 0
        self._mark = (time.monotonic(), 0)

    def begin(self, steps: tuple[int, int, int], samples: Callable[[], int], work: Work) -> None:
        """A loop begins.

        Args:
            steps: Steps of the run before the loop's first, steps that the loop has taken, and its steps in all.
            samples: How many it has seen.
            work: What a sample costs.
        """
        self._first_step, taken, total = steps
        self._samples, self._work = samples, work
        self._mark = (time.monotonic(), samples())
        self._progress = Progress(total, taken)
        self._teller = Teller(self.metrics.path.parent, self._first_step + taken, self._first_step + total)

    def end(self) -> None:
        """The loop is over: what is said next does not land in its progress bar."""
        if self._progress is not None:
            self._progress.close()
        self._progress = None

    @property
    def is_due(self) -> bool:
        """Whether the last update is at least SHOW_SECONDS ago."""
        return time.monotonic() - self._mark[0] >= SHOW_SECONDS

    def show(self, step: int) -> None:
        """Write what was logged, and show the newest values with speed and memory."""
        self.flush()
        now = (time.monotonic(), self._samples())
        per_second = (now[1] - self._mark[1]) / max(1e-9, now[0] - self._mark[0])
        self._mark = now
        usage = {f"{self._work.unit}_per_second": per_second * self._work.units_per_sample, **memory_gb(self._device)}
        speed = f"{per_second * self._work.units_per_sample:,.0f} {self._work.unit}/s"
        utilization = self._work.utilization(per_second, self._peak_flops)
        if utilization is not None:
            usage["mfu"] = utilization
            speed += f"  mfu {utilization:.1%}"
        self._trackers.log({**self.latest, **usage}, step)
        if self._teller is not None:
            self._teller.tell(step, per_second * self._work.units_per_sample, self._work.unit, self.latest)
        if self._progress is not None:
            self._progress.show(step - self._first_step, self.latest, speed)

    def flush(self) -> str:
        """Write what was logged; returns the beginning of a sentence where a value is not finite, else ""."""
        self.latest |= self.metrics.flush()
        found = self.metrics.not_finite
        return "" if found is None else f"{found.name} must stay finite, but is {found.value} at step {found.step}"

    def close(self) -> None:
        """Leave files, trackers and the progress bar whole."""
        self.end()
        self.metrics.close()
        self._trackers.close()

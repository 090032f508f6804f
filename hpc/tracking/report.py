"""What a run says about itself while it trains, on rank 0: what was logged, how fast it goes, what it uses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from hpc.errors import DivergedError
from hpc.tracking.metrics import Metrics, Values
from hpc.tracking.progress import Progress
from hpc.tracking.trackers import TrackedRun, Tracker, Trackers
from hpc.tracking.usage import Work, memory_gb, peak_flops

SHOW_SECONDS = 1.0
"""At least so long between two points in trackers and on the screen, because showing one takes 0.7 ms of CPU."""


class Report:
    """metrics.jsonl, the progress line and the trackers of one life.

    Args:
        run: The point, and where this life goes on.
        total: Steps in all.
        samples: Samples seen in earlier lives.
        work: What a sample costs.
        devices: This rank's device, and how many ranks have one.
        trackers: Those to open.
        must_be_finite: Names of logged values that are looked at.
    """

    def __init__(
        self,
        run: TrackedRun,
        total: int,
        samples: int,
        work: Work,
        devices: tuple[torch.device, int],
        trackers: Sequence[Tracker],
        must_be_finite: Sequence[str],
    ) -> None:
        self.metrics = Metrics(run.directory, run.step, must_be_finite)
        self.latest: Values = {}
        self._progress = Progress(total, run.step)
        self._trackers = Trackers(trackers, run)
        self._work = work
        self._device, count = devices
        self._peak_flops = (peak_flops(self._device) or 0.0) * count
        self._mark = (time.monotonic(), samples)

    def log(self, step: int, values: dict[str, Any], skipped: bool) -> None:
        """Note values of a step; see `Metrics.log`."""
        self.metrics.log(step, values, skipped)

    @property
    def is_due(self) -> bool:
        """Whether the last time something was shown is long enough ago."""
        return time.monotonic() - self._mark[0] >= SHOW_SECONDS

    def show(self, step: int, samples: int) -> None:
        """Write down what was logged, and show the newest of it with speed and memory."""
        self.flush()
        now = (time.monotonic(), samples)
        per_second = (now[1] - self._mark[1]) / max(1e-9, now[0] - self._mark[0])
        self._mark = now
        usage = {f"{self._work.unit}_per_second": per_second * self._work.units_per_sample, **memory_gb(self._device)}
        speed = f"{per_second * self._work.units_per_sample:,.0f} {self._work.unit}/s"
        utilization = self._work.utilization(per_second, self._peak_flops)
        if utilization is not None:
            usage["mfu"] = utilization
            speed += f"  mfu {utilization:.1%}"
        self._trackers.log({**self.latest, **usage}, step)
        self._progress.show(step, self.latest, speed)

    def flush(self) -> DivergedError | None:
        """Write down what was logged; an error when it says that training has diverged."""
        self.latest |= self.metrics.flush()
        found = self.metrics.not_finite
        if found is None:
            return None
        return DivergedError(
            f"{found.name} must stay finite, but is {found.value} at step {found.step}; the last checkpoint is from "
            "before, and nothing was saved since: lower the learning rate or clip gradients in a new run_dir, or take "
            "the name out of runtime.must_be_finite."
        )

    def close(self) -> None:
        """Leave files, trackers and the progress bar whole."""
        self._progress.close()
        self.metrics.close()
        self._trackers.close()

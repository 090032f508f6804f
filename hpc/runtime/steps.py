"""The loop and its boundaries: where the run resumes, saves, agrees with the other ranks, and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpc.errors import EXIT_CONTINUE
from hpc.preemption import Agreement, StopCause
from hpc.runtime.checkpoints import Checkpoints
from hpc.runtime.data import PreparedLoader
from hpc.runtime.iterable import PreparedIterable
from hpc.runtime.trackers import Metrics, Progress, Values
from hpc.runtime.weights import Weigh, weighed

if TYPE_CHECKING:
    from hpc.runtime.runtime import Runtime

SHOW_SECONDS = 0.5
"""At least so long between two points in TensorBoard and on the screen, because writing one takes 0.3 ms of CPU."""


class Steps:
    """The micro-batches of one run, from wherever it was left to its last step.

    Args:
        runtime: What to save and restore, and who the other ranks are.
        loader: Where micro-batches come from.
        total: Optimizer steps in all.
        tokens_per_sample: Counts speed in tokens; None counts samples.
        weigh: How much a micro-batch counts; None lets all count the same.
    """

    def __init__(
        self,
        runtime: Runtime,
        loader: PreparedLoader | PreparedIterable,
        total: int,
        tokens_per_sample: int | None,
        weigh: Weigh | None = None,
    ) -> None:
        self.runtime, self.loader, self.total = runtime, loader, total
        self.unit, self.unit_per_sample = ("tokens", tokens_per_sample) if tokens_per_sample else ("samples", 1)
        self.weigh = weigh
        self.step = 0
        self.samples = 0
        self.global_batch_size = loader.share.samples * runtime.window.size
        self.checkpoints = Checkpoints(runtime)
        self.agreement = Agreement(runtime.requests, runtime.group.side)
        self.metrics: Metrics | None = None
        self.progress: Progress | None = None
        self._latest: Values = {}
        self._mark = (0.0, 0)
        self._positions: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self._resume()
        if self.step < self.total:
            yield from self._train()
        self._save()
        self.close()

    def log(self, values: dict[str, Any]) -> None:
        """Note values of the step that is being taken; after the loop, of the last one."""
        if self.metrics is not None:
            self.metrics.log(min(self.step + 1, self.total), values)

    def close(self) -> None:
        """Leave files and the progress bar whole; a second call does nothing."""
        if self.progress is not None:
            self.progress.close()
            self.progress = None
        if self.metrics is not None:
            self.metrics.close()
            self.metrics = None

    def _train(self) -> Iterator[Any]:
        window = self.runtime.window
        began = time.monotonic()
        for batch in self._micro_batches():
            yield batch
            if window.size > 1 and not window.is_last:
                continue
            now = time.monotonic()
            self._boundary(now - began)
            began = now
            if self.step == self.total:
                self.agreement.finish()
                return

    def _micro_batches(self) -> Iterator[Any]:
        batches = self.loader.stream(self.samples, self._positions)
        if self.weigh is None:
            return batches
        return weighed(batches, self.weigh, self.runtime.window, self.runtime.group)

    def _boundary(self, step_seconds: float) -> None:
        self.step += 1
        self.samples += self.global_batch_size
        settings = self.runtime.settings
        if self.step == self.total or (self.step % settings.runtime.log_every_steps == 0 and self._show_is_due()):
            self._show()
        if self.checkpoints.is_due(self.step):
            self._save()
        cause = self.agreement.at_boundary(step_seconds)
        if cause is not StopCause.NONE and self.step < self.total:
            self._stop(cause)

    def _stop(self, cause: StopCause) -> None:
        """Save, and leave with the code that asks for another life."""
        self._save()
        if self.runtime.is_main_process:
            self.runtime.journal.write("stopped", step=self.step, cause=cause.name)
            where = f"run_dir={self.runtime.directory} goes on from here"
            print(f"Stopped at step {self.step} of {self.total} ({cause.name}) and saved; {where}.", flush=True)
        raise SystemExit(EXIT_CONTINUE)

    def _resume(self) -> None:
        found = self.checkpoints.resume()
        if found is not None:
            self.step, self.samples, self._positions = found["step"], found["samples"], found["positions"]
            self._keep_global_batch(found["global_batch_size"])
        if self.runtime.is_main_process:
            self._open_trackers()

    def _keep_global_batch(self, size: int) -> None:
        """On another number of ranks, accumulate so much more or less that a step takes as many samples as before."""
        window, share = self.runtime.window, self.loader.share
        before, window.size = window.size, share.accumulation_steps(size)
        self.global_batch_size = size
        if window.size != before:
            self.runtime.print(
                f"The global batch stays {size} samples: {share.world_size} rank(s) × {share.batch_size} sample(s) × "
                f"{window.size} micro-batch(es)."
            )

    def _open_trackers(self) -> None:
        if self.step:
            print(f"Resumed at step {self.step} of {self.total}.", flush=True)
        self.metrics = Metrics(self.runtime.directory, self.step)
        self.progress = Progress(self.total, self.step, self.unit)
        self._mark = (time.monotonic(), self.samples)

    def _show_is_due(self) -> bool:
        return time.monotonic() - self._mark[0] >= SHOW_SECONDS

    def _show(self) -> None:
        if self.metrics is None or self.progress is None:
            return
        self._latest |= self.metrics.flush()
        now = (time.monotonic(), self.samples)
        per_second = (now[1] - self._mark[1]) * self.unit_per_sample / max(1e-9, now[0] - self._mark[0])
        self._mark = now
        self.metrics.speed(f"{self.unit}_per_second", per_second, self.step)
        self.progress.show(self.step, self._latest, per_second)

    def _save(self) -> None:
        """Commit this step's checkpoint, unless it is there. Collective."""
        if self.metrics is not None:
            self._latest |= self.metrics.flush()
        position = {
            "step": self.step,
            "samples": self.samples,
            "global_batch_size": self.global_batch_size,
            "positions": self.runtime.group.collect(self.loader.position()),
        }
        self.checkpoints.save(self.step, position, self._latest)

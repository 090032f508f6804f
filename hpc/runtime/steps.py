"""The loop and its boundaries: where the run resumes, saves, agrees with the other ranks, and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpc.checkpoint.checkpoints import Checkpoints, Position
from hpc.checkpoint.random_state import restore_random_state
from hpc.config import plain
from hpc.data.iterable import PreparedIterable
from hpc.data.loader import PreparedLoader
from hpc.errors import EXIT_CONTINUE, DivergedError
from hpc.run.events import Diverged, Stopped
from hpc.runtime.micro_batch_weights import Weigh, weighed
from hpc.runtime.seeds import seed_rank
from hpc.stop.agreement import Agreement
from hpc.stop.requests import StopCause
from hpc.tracking.profiler import ProfilerWindow
from hpc.tracking.report import Report
from hpc.tracking.trackers import TrackedRun
from hpc.tracking.usage import Work

if TYPE_CHECKING:
    from hpc.runtime.runtime import Runtime


class Steps:
    """The micro-batches of one run, from wherever it was left to its last step.

    Args:
        runtime: What to save and restore, and who the other ranks are.
        loader: Where micro-batches come from.
        total: Optimizer steps in all.
        work: What a sample costs.
        weigh: How much a micro-batch counts; None lets all count the same.
    """

    def __init__(
        self,
        runtime: Runtime,
        loader: PreparedLoader | PreparedIterable,
        total: int,
        work: Work,
        weigh: Weigh | None = None,
    ) -> None:
        self.runtime, self.loader, self.total, self.work = runtime, loader, total, work
        self.weigh = weigh
        self.step = 0
        self.samples = 0
        self.global_batch_size = loader.share.samples * runtime.window.size
        self.checkpoints = Checkpoints(
            runtime.journal,
            runtime.settings.checkpoint,
            runtime.group,
            runtime.state,
            runtime.requests,
            runtime.print,
        )
        self.agreement = Agreement(runtime.requests, runtime.group.side)
        self.report: Report | None = None
        self.profiler = ProfilerWindow(
            runtime.settings.runtime.profile, runtime.directory, runtime.world.rank, runtime.device
        )
        self._positions: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self._resume()
        if self.step < self.total:
            yield from self._train()
        self.checkpoints.save_now(self._position())
        self.close()

    def log(self, values: dict[str, Any]) -> None:
        """Note values of the step that is being taken; after the loop, of the last one."""
        if self.report is not None:
            self.report.log(min(self.step + 1, self.total), values, bool(self.runtime.window.skipped))

    def close(self, failed: bool = False) -> None:
        """Leave files and the progress bar whole; a second call does nothing.

        Args:
            failed: Training ended with an exception, and other ranks may be gone.

        Raises:
            SaveError: A save was still under way, and has failed.
        """
        self.profiler.close()
        if self.runtime.requests.cause is StopCause.DIVERGED:
            self.runtime.requests.cause = StopCause.NONE  # this run's, not that of the next one in this process
        if self.report is not None:
            self.report.close()
            self.report = None
        self.checkpoints.close(failed)

    def _train(self) -> Iterator[Any]:
        window = self.runtime.window
        self.profiler.after(self.step)
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
        self.profiler.after(self.step)
        if self.step == self.total or self.step % settings.runtime.log_every_steps == 0:
            self._show()
        if self.checkpoints.schedule.is_due(self.step):
            self.checkpoints.save(self._position())
        self.checkpoints.ask_to_stop_if_failed()
        cause = self.agreement.at_boundary(step_seconds)
        if cause is not StopCause.NONE and self.step < self.total:
            self._stop(cause)

    def _stop(self, cause: StopCause) -> None:
        """Save, and leave with the code that asks for another life; unless there is nothing worth saving."""
        if cause is StopCause.SAVE_FAILED:
            self.checkpoints.raise_failure()
        saved = self.checkpoints.save_now(self._position())
        if self.runtime.is_main_process:
            self.runtime.journal.write(Stopped(self.step, cause.name))
            what = "saved" if saved == self.step else f"had no time to save more than step {saved}"
            where = f"run_dir={self.runtime.directory} goes on from there"
            print(f"Stopped at step {self.step} of {self.total} ({cause.name}) and {what}; {where}.", flush=True)
        raise SystemExit(EXIT_CONTINUE)

    def _resume(self) -> None:
        found = self.checkpoints.resume()
        self._set_random_state(found["ranks"] if found else [])
        if found is not None:
            self.step, self.samples = found["step"], found["samples"]
            self._positions = [rank["position"] for rank in found["ranks"]]
            self._keep_global_batch(found["global_batch_size"])
        if self.runtime.is_main_process:
            self.report = self._open_report()

    def _set_random_state(self, ranks: list[dict[str, Any]]) -> None:
        rank = self.runtime.world.rank
        if rank < len(ranks):
            restore_random_state(ranks[rank]["random"])
        else:
            seed_rank(self.runtime.settings.seed, rank)

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

    def _open_report(self) -> Report:
        runtime, options = self.runtime, self.runtime.settings
        if self.step:
            print(f"Resumed at step {self.step} of {self.total}.", flush=True)
        run = TrackedRun(runtime.directory, options.experiment.name, plain(runtime.config), self.step)
        devices = runtime.device, runtime.num_processes
        return Report(
            run, self.total, self.samples, self.work, devices, runtime.trackers, options.runtime.must_be_finite
        )

    def _show(self) -> None:
        if self.report is None or not (self.report.is_due or self.step == self.total):
            return
        self.report.show(self.step, self.samples)
        if self.report.metrics.not_finite is not None:
            self.runtime.requests.ask(StopCause.DIVERGED)  # the other ranks hear of it when they next agree

    def _position(self) -> Position:
        """What to save beside the training state. Collective.

        Raises:
            DivergedError: There is nothing worth saving; alike on all ranks.
        """
        error = self.runtime.group.broadcast(self._divergence())
        if error is not None:
            self.checkpoints.close(failed=False)  # a save that was begun before is worth keeping
            raise error
        shared = {"step": self.step, "samples": self.samples, "global_batch_size": self.global_batch_size}
        latest = self.report.latest if self.report is not None else {}
        return Position(self.step, shared, self.loader.position(), latest)

    def _divergence(self) -> DivergedError | None:
        """On rank 0, whose logged values are the run's: what is wrong with them."""
        found = self.report.flush() if self.report is not None else None
        if found is not None:
            self.runtime.journal.write(Diverged(self.step, str(found)))
        return found

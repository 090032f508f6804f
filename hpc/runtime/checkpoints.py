"""What does this run go on from, when does it save, and what happens to training while it does?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.random_state import restore_random_state, seed_everything
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import HpcError, LoadError

if TYPE_CHECKING:
    from hpc.runtime.runtime import Runtime


class Checkpoints:
    """The checkpoints of one run, as its step boundaries see them.

    Args:
        runtime: What to save and restore, and who the other ranks are.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.options = runtime.settings.checkpoint
        self.store = CheckpointStore(runtime.directory / "checkpoints", Retention(self.options.keep))
        self._saved_step = 0

    def resume(self) -> dict[str, Any] | None:
        """Take over the run directory and load the newest good checkpoint; returns its trainer state. Collective.

        Raises:
            LoadError: Checkpoints were committed and none of them can be trusted, or they are of something else.
            SaveError: The directory cannot be written.
        """
        runtime = self.runtime
        error = runtime.group.broadcast(self._take_over() if runtime.is_main_process else None)
        if error is not None:
            raise error
        found = load_latest(self.store, runtime.state, runtime.group, runtime.print)
        self._check_journal(found.checkpoint.step if found else None)
        self._saved_step = found.checkpoint.step if found else 0
        self._set_random_state(found.trainer["ranks"] if found else [])
        return found.trainer if found else None

    def is_due(self, step: int) -> bool:
        """Whether to save at this step boundary; the same on all ranks."""
        return step % self.options.every_steps == 0

    def save(self, step: int, position: dict[str, Any], metrics: dict[str, float]) -> None:
        """Commit this step's checkpoint, unless it is there. Collective.

        Args:
            step: Optimizer steps taken.
            position: What `resume` gives back, besides the rest.
            metrics: The newest logged values.

        Raises:
            SaveError: It could not be made durable; the same on all ranks.
        """
        if step == self._saved_step:
            return
        runtime = self.runtime
        began = time.monotonic()
        commit(self.store, runtime.group, snapshot(runtime.state, step, runtime.world.rank, position, metrics))
        self._saved_step = step
        if runtime.is_main_process:
            runtime.journal.write("committed", step=step, seconds=round(time.monotonic() - began, 3))

    def _take_over(self) -> HpcError | None:
        """On rank 0; an error is for all ranks to raise."""
        try:
            self.store.acquire()
        except HpcError as error:
            return error
        return None

    def _check_journal(self, step: int | None) -> None:
        """Never start anew where there was something to go on from."""
        runtime = self.runtime
        committed = runtime.group.broadcast(runtime.journal.last_committed_step() if runtime.is_main_process else None)
        if step is None and committed is not None:
            raise LoadError(
                f"{self.store.directory} must hold the checkpoint of step {committed} that the journal tells of, "
                "but nothing there can be trusted: restore it, or choose another run_dir to start anew."
            )
        if runtime.is_main_process:
            runtime.journal.write("resumed", step=step or 0)

    def _set_random_state(self, ranks: list[dict[str, Any]]) -> None:
        """Continue this rank's random stream, or give it one: until here all ranks drew alike, to build one model."""
        rank = self.runtime.world.rank
        if rank < len(ranks):
            restore_random_state(ranks[rank]["random"])
        else:
            seed_everything(int(np.random.SeedSequence([self.runtime.settings.seed, rank]).generate_state(1)[0]))

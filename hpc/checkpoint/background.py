"""How does a save go on while training does? Tensors are copied at the step boundary; a thread writes the copies.

The copies live in buffers that are allocated by the first save and used by all others, so the host's memory holds the
state once more, and never twice. There is one save at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from hpc.checkpoint.group import Group
from hpc.checkpoint.save import Snapshot, commit
from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.errors import SaveError


class Staging:
    """Memory for one snapshot; pinned where tensors come from a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def hold(self, contents: Snapshot) -> Snapshot:
        """The same snapshot, which training cannot change any more.

        A GPU is not waited for: its copies are queued behind the step that was taken, and before the next one.
        """
        parts = {name: replace(part, tensor=self._copy(name, part.tensor)) for name, part in contents.parts.items()}
        surveys = [replace(each, values=self._copy(str(n), each.values)) for n, each in enumerate(contents.surveys)]
        given = [*(part.tensor for part in contents.parts.values()), *(each.values for each in contents.surveys)]
        ready = _after_copies() if any(tensor.is_cuda for tensor in given) else contents.ready
        return replace(contents, parts=parts, surveys=tuple(surveys), ready=ready)

    def _copy(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype is not tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[name] = buffer
        return buffer.copy_(tensor, non_blocking=tensor.is_cuda)


def _after_copies() -> Callable[[], object]:
    event = torch.Event("cuda")
    event.record()
    return event.synchronize


@dataclass
class Flight:
    """A save that was started.

    Args:
        step: What it saves.
        blocked_seconds: How long it kept training.
        durable_seconds: How long it took from its start until it was committed, or had failed.
        outcome: A checkpoint, or what went wrong; None while it runs.
    """

    step: int
    blocked_seconds: float = 0.0
    durable_seconds: float = 0.0
    outcome: Checkpoint | Exception | None = None


class BackgroundSaver:
    """Commits snapshots one after the other, in a thread of their own.

    Args:
        store: Where to.
        group: A group that nothing else uses.
        report: Called in the thread when a save has ended.
    """

    def __init__(self, store: CheckpointStore, group: Group, report: Callable[[Flight], None]) -> None:
        self.store, self.group, self.report = store, group, report
        self.flight: Flight | None = None
        self.failure: Exception | None = None
        """What the save in flight has ended with, where it has ended badly."""
        self._thread: threading.Thread | None = None

    def start(self, contents: Snapshot, began: float) -> None:
        """Save behind training; the one before must have landed.

        Args:
            contents: Held by a Staging.
            began: When training stopped for it, by the monotonic clock.
        """
        self.flight = Flight(contents.step, blocked_seconds=time.monotonic() - began)
        work = (self.flight, contents, began)
        # a daemon: when training fails, the process must not wait for ranks that may be gone
        self._thread = threading.Thread(target=self._run, args=work, name="hpc-save", daemon=True)
        self._thread.start()

    def run(self, contents: Snapshot, began: float) -> None:
        """Save before training goes on; otherwise as `start`, but the tensors need not be copies."""
        self.flight = Flight(contents.step)
        self._run(self.flight, contents, began)

    def is_running(self, after_seconds: float = 0.0) -> bool:
        """Whether the save is still under way after waiting for it for this long."""
        if self._thread is not None:
            self._thread.join(after_seconds)
        return self.flight is not None and self.flight.outcome is None

    def land(self) -> Flight | None:
        """Wait for the save in flight, and forget it; None where no save is in flight."""
        if self._thread is not None:
            self._thread.join()
        flight, self.flight, self.failure, self._thread = self.flight, None, None, None
        return flight

    def _run(self, flight: Flight, contents: Snapshot, began: float) -> None:
        try:
            outcome: Checkpoint | Exception = commit(self.store, self.group, contents)
        except Exception as error:  # whatever it is, it is raised where training can see it
            outcome = error
        flight.durable_seconds = time.monotonic() - began
        flight.blocked_seconds = flight.blocked_seconds or flight.durable_seconds
        try:
            self.report(replace(flight, outcome=outcome))
        except SaveError as error:  # the journal cannot be written: this save is not one to go on from
            outcome = error
        flight.outcome = outcome
        self.failure = outcome if isinstance(outcome, Exception) else None

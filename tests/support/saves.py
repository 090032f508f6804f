"""Small checkpoints, saved through the real protocol by one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import Snapshot, commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.world import World


class Alone:
    """The group of a process that has no others."""

    world = World(0, 1, 0, 1, 0, 1, ("here",), "test", "0")

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def all_gather(self, value: Any) -> list[Any]:
        return [value]


class Life:
    """One life of a point that saves a number.

    Args:
        directory: Of the checkpoints.
        retention: What stays.
    """

    def __init__(self, directory: Path, retention: Retention = Retention(keep=2)) -> None:  # noqa: B008
        self.store = CheckpointStore(directory, retention)
        self.store.acquire()

    def contents(self, step: int, value: float, **metrics: float) -> Snapshot:
        """A model and its optimizer, full of `value`."""
        return snapshot(state(value), step, 0, {"step": step}, metrics)

    def save(self, step: int, value: float | None = None, **metrics: float) -> Checkpoint:
        """Commit them."""
        return commit(self.store, Alone(), self.contents(step, float(step) if value is None else value, **metrics))


def state(value: float = 0.0) -> TrainingState:
    """A model and its optimizer after one step, all of their tensors full of `value`."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    result = TrainingState([model], [optimizer], {})
    with torch.no_grad():
        for tensor in result.contents({}).tensors.values():
            tensor.fill_(value)
    return result


def newest(store: CheckpointStore, reports: list[str]) -> int | None:
    """The step of the newest checkpoint that can be trusted."""
    found = store.latest(reports.append)
    return found.step if found else None

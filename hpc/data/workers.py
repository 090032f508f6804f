"""A loader's worker processes: how they begin, what they draw, and how they end."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from hpc.data.draws import seed_draws
from hpc.stop.requests import ignore_signals_in_worker


def reader(loader: DataLoader[Any], turns: Turns, alone: bool, seed: int) -> DataLoader[Any]:
    """A loader that reads like the user's one, but takes its lists of indices from `turns`.

    In this very process the data set draws from the generators that are saved; in workers, by the batch's position.

    Args:
        loader: The user's.
        turns: Which batches.
        alone: Each entry of the data set is a batch, and is asked for alone.
        seed: Of the draws in workers.
    """
    dataset: Any = _Alone(loader.dataset) if alone else loader.dataset
    source: Any = _Seeded(dataset, seed) if loader.num_workers else dataset
    return DataLoader(
        source,
        batch_sampler=turns,
        num_workers=loader.num_workers,
        collate_fn=_CollatedAlone(loader.collate_fn) if alone else loader.collate_fn,
        pin_memory=loader.pin_memory,
        pin_memory_device=loader.pin_memory_device,
        timeout=loader.timeout,
        worker_init_fn=WorkerStart(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        generator=torch.Generator(),  # its own: an iterator draws from it when it is made
    )


@dataclass
class Turns:
    """A batch sampler that is given new batches for each pass, while the same workers live on.

    Args:
        batches: Those of this pass.
    """

    batches: Iterable[list[Any]] = ()

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.batches)


def numbered(batches: Iterable[list[Any]], start: int, step: int) -> Iterator[list[Any]]:
    """Each batch's global position before its indices, for workers to draw by.

    Args:
        batches: Lists of indices.
        start: Position of the first batch.
        step: From one batch's to the next one's.
    """
    for number, batch in enumerate(batches):
        yield [start + number * step, *batch]


@dataclass(frozen=True)
class _Seeded:
    """A data set whose random draws in a worker depend on the position of the batch, not on the worker's past.

    So neither a resume nor another number of workers changes them.
    """

    dataset: Any
    seed: int

    def __getitems__(self, numbered: list[Any]) -> list[Any]:
        position, *indices = numbered
        seed_draws(self.seed, position)
        fetch = getattr(self.dataset, "__getitems__", None)
        return list(fetch(indices)) if fetch is not None else [self.dataset[index] for index in indices]


@dataclass(frozen=True)
class WorkerStart:
    """How a loader's worker begins: it ignores stop signals, and gets the user's own data set. Picklable, for spawn.

    Args:
        user: The worker_init_fn of the user's loader.
    """

    user: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        """Run in the worker, once."""
        ignore_signals_in_worker()
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Seeded):
            inner = info.dataset.dataset
            object.__setattr__(info, "dataset", inner.dataset if isinstance(inner, _Alone) else inner)  # users set it
        if self.user is not None:
            self.user(worker)


@dataclass(frozen=True)
class _Alone:
    """A data set that is asked for one entry at a time, as torch does without a batch size. Picklable."""

    dataset: Any

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[index]


@dataclass(frozen=True)
class _CollatedAlone:
    """Makes a batch of one entry of the data set that is a batch already. Picklable, for spawned workers."""

    collate: Callable[[Any], Any]

    def __call__(self, entries: list[Any]) -> Any:
        """Make a batch of the only entry."""
        (entry,) = entries
        return self.collate(entry)


@atexit.register
def _end_workers() -> None:
    """End the workers of loaders that are still open, because they ignore SIGTERM and Python would wait at its exit."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker is killed
    for worker in workers:
        worker.terminate()  # SIGTERM, as multiprocessing sends it: processes that are not ours react to it
    for worker in workers:
        worker.join(timeout=0.5)
        worker.kill()

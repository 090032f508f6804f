"""The user's DataLoader, made to give each rank its part of one global order.

The position is one number, samples consumed by all ranks together, whatever their number: a global batch is cut into
(micro-batch, rank, slot), so a resumed run sees the very next one, and another world size sees the same ones.
"""

from __future__ import annotations

import atexit
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, get_worker_info

from hpc.connect.process_group import ProcessGroup
from hpc.data.nest import on_device
from hpc.data.order import Order
from hpc.data.rows import CurrentRows, Rows
from hpc.data.share import Share
from hpc.errors import ConfigurationError
from hpc.stop.requests import ignore_signals_in_worker

INDICES_AT_ONCE = 8192
"""Indices are computed for at least so many samples in one go: NumPy's overhead is per call."""


class EndlessBatches:
    """A batch sampler without end: epoch follows epoch, and one batch may hold the end of one and the next's start."""

    def __init__(self, order: Order, share: Share, start: int) -> None:
        self.order, self.share, self.start = order, share, start

    def __iter__(self) -> Iterator[list[int]]:
        position, batches = self.start, -(-INDICES_AT_ONCE // self.share.batch_size)
        while True:
            positions = self.share.positions(position, batches)
            yield from self.order.indices(positions.reshape(-1)).reshape(positions.shape).tolist()
            position += batches * self.share.samples


class OnePass:
    """A batch sampler that gives every sample to one rank, once, as they lie; all ranks get equally long batches.

    The last batches are shortened alike, and where even that leaves too few samples, a rank repeats the last one.
    """

    def __init__(self, length: int, share: Share) -> None:
        self.length, self.share = length, share

    def __iter__(self) -> Iterator[list[int]]:
        for number, rows in enumerate(self.rows()):
            first = number * self.share.samples + self.share.rank * rows.held
            yield [min(position, self.length - 1) for position in range(first, first + rows.held)]

    def __len__(self) -> int:
        return -(-self.length // self.share.samples)

    def rows(self) -> Iterator[Rows]:
        """The rows of each batch."""
        ranks = self.share.world_size
        for start in range(0, self.length, self.share.samples):
            left = min(self.share.samples, self.length - start)
            held = -(-left // ranks)
            yield Rows(held, tuple(max(0, min(held, left - rank * held)) for rank in range(ranks)))


class PreparedLoader:
    """What `Runtime.prepare` makes of a DataLoader over a map-style data set.

    Iterating it is one pass: every sample once, as they lie, with equally many batches on all ranks.

    Args:
        loader: The user's; its sampler says whether to shuffle the training, and is not used otherwise.
        group: This rank among the others.
        seed: Of the order.
        current: Told which rows of each batch of a pass are samples.
    """

    def __init__(self, loader: DataLoader[Any], group: ProcessGroup, seed: int, current: CurrentRows) -> None:
        _check_sampler(loader)
        self.loader, self.device, self.current = loader, group.device, current
        self.share = Share(group.world.rank, group.world.world_size, loader.batch_size or 1)
        self.order = Order(len(loader.dataset), seed, isinstance(loader.sampler, RandomSampler))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        batches = OnePass(self.order.length, self.share)
        return self.current.follow(zip(batches.rows(), self._batches(batches, start=0), strict=True))

    def __len__(self) -> int:
        return len(OnePass(self.order.length, self.share))

    def stream(self, start: int, positions: Sequence[Any] = ()) -> Iterator[Any]:
        """This rank's micro-batches without end, from the global position `start` on, which is all there is to know."""
        del positions
        return self._batches(EndlessBatches(self.order, self.share, start), start)

    def position(self) -> None:
        """Nothing: see `stream`."""

    def _batches(self, batches: Any, start: int) -> Iterator[Any]:
        return on_device(_rebuilt(self.loader, *self._parts(batches, start)), self.device)

    def _parts(self, batches: Any, start: int) -> tuple[Any, Any]:
        """Data set and batch sampler; in this very process the data set draws from the generators that are saved."""
        if not self.loader.num_workers:
            return self.loader.dataset, batches
        return _Seeded(self.loader.dataset, self.order.seed), _Numbered(batches, start, self.share)


def _check_sampler(loader: DataLoader[Any]) -> None:
    sampler, samples = loader.sampler, len(loader.dataset)  # type: ignore[arg-type]
    if loader.batch_size is None:
        found = f"the batch_sampler {type(loader.batch_sampler).__name__}" if loader.batch_sampler else "no batch_size"
    elif isinstance(sampler, RandomSampler) and (sampler.replacement or sampler.num_samples != samples):
        found = "a RandomSampler that repeats or omits samples"
    elif not isinstance(sampler, (RandomSampler, SequentialSampler)):
        found = f"the sampler {type(sampler).__name__}"
    elif not samples:
        found = "an empty data set"
    else:
        return
    raise ConfigurationError(
        "The loader must be a DataLoader(dataset, batch_size=..., shuffle=...) over a map-style data set with samples, "
        f"because prepare deals them out to the ranks itself, but it has {found}: leave the sampler away, "
        "and let the data set say which samples there are."
    )


class _Numbered:
    """Puts each batch's global position before its indices, for workers to draw from a generator of its own."""

    def __init__(self, batches: Any, start: int, share: Share) -> None:
        self.batches, self.start, self.share = batches, start, share

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start + self.share.rank * self.share.batch_size
        for batch in self.batches:
            yield [position, *batch]
            position += self.share.samples


@dataclass(frozen=True)
class _Seeded:
    """A data set whose random draws in a worker depend on the position of the batch, not on the worker's past.

    So neither a resume nor another number of workers changes them.
    """

    dataset: Any
    seed: int

    def __getitems__(self, numbered: list[int]) -> list[Any]:
        position, *indices = numbered
        _seed_worker(self.seed, position)
        fetch = getattr(self.dataset, "__getitems__", None)
        return list(fetch(indices)) if fetch is not None else [self.dataset[index] for index in indices]


def _seed_worker(seed: int, position: int) -> None:
    (drawn,) = np.random.SeedSequence([seed % 2**64, position]).generate_state(1)
    random.seed(int(drawn))
    np.random.seed(drawn)  # the generator that user code draws from
    torch.default_generator.manual_seed(int(drawn))


def _rebuilt(loader: DataLoader[Any], dataset: Any, batches: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=WorkerStart(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=torch.Generator(),  # its own: an iterator draws from it when it is made
    )


@dataclass(frozen=True)
class WorkerStart:
    """How a loader's worker begins: deaf to stop requests, with the user's own data set. Picklable, for spawned ones.

    Args:
        user: The worker_init_fn of the user's loader.
    """

    user: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        """Run in the worker, once."""
        ignore_signals_in_worker()
        info = get_worker_info()
        if info is not None and isinstance(info.dataset, _Seeded):
            object.__setattr__(info, "dataset", info.dataset.dataset)  # user code sets attributes of it
        if self.user is not None:
            self.user(worker)


@atexit.register
def _end_workers() -> None:
    """End the workers of loaders that are still open: deaf to SIGTERM, they would be waited for at exit for ever."""
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker is killed
    for worker in workers:
        worker.terminate()  # what multiprocessing does; others' processes listen to it
    for worker in workers:
        worker.join(timeout=0.5)
        worker.kill()

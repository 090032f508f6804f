"""The user's DataLoader, made to give each rank its part of one global order.

The position is one number, samples consumed by all ranks together, whatever their number: a global batch is cut into
(micro-batch, rank, slot), so a resumed run sees the very next one, and another world size sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from hpc.errors import ConfigurationError
from hpc.preemption import ignore_signals_in_worker
from hpc.runtime.order import Order
from hpc.world import World

INDICES_AT_ONCE = 8192
"""Indices are computed for at least so many samples in one go: NumPy's overhead is per call."""


@dataclass(frozen=True)
class Share:
    """Which part of every global batch is this rank's.

    Args:
        rank: Which rank.
        world_size: Of how many.
        batch_size: Samples per rank and micro-batch.
        accumulation_steps: Micro-batches per global batch.
    """

    rank: int
    world_size: int
    batch_size: int
    accumulation_steps: int = 1

    @property
    def global_batch_size(self) -> int:
        """Samples per optimizer step, all ranks together."""
        return self.world_size * self.batch_size * self.accumulation_steps

    def positions(self, start: int, micro_batches: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Global positions of this rank's next micro-batches.

        Args:
            start: Samples consumed by all ranks before.
            micro_batches: How many.

        Returns:
            Shape [micro_batches, batch_size].
        """
        slots = np.arange(self.batch_size, dtype=np.uint64) + np.uint64(self.rank * self.batch_size)
        starts = np.arange(micro_batches, dtype=np.uint64) * np.uint64(self.world_size * self.batch_size)
        return np.uint64(start) + starts[:, None] + slots[None, :]


class EndlessBatches:
    """A batch sampler without end: epoch follows epoch, and one batch may hold the end of one and the next's start."""

    def __init__(self, order: Order, share: Share, start: int) -> None:
        self.order, self.share, self.start = order, share, start

    def __iter__(self) -> Iterator[list[int]]:
        position, batches = self.start, -(-INDICES_AT_ONCE // self.share.batch_size)
        while True:
            positions = self.share.positions(position, batches)
            yield from self.order.indices(positions.reshape(-1)).reshape(positions.shape).tolist()
            position += batches * self.share.world_size * self.share.batch_size


class OnePass:
    """A batch sampler that gives every sample to exactly one rank, once; the last batches may be short or missing."""

    def __init__(self, length: int, share: Share) -> None:
        self.length, self.share = length, share

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(len(self)):
            (positions,) = self.share.positions(number * self.share.world_size * self.share.batch_size, 1)
            yield positions[positions < self.length].tolist()

    def __len__(self) -> int:
        stride = self.share.world_size * self.share.batch_size
        whole, rest = divmod(self.length, stride)
        return whole + (rest > self.share.rank * self.share.batch_size)


class PreparedLoader:
    """What `Runtime.prepare` makes of a DataLoader. Iterating it is one pass over the data, each sample on one rank.

    Args:
        loader: The user's; its sampler says whether to shuffle, and is not used otherwise.
        world: This rank.
        seed: Of the order.
        accumulation_steps: Micro-batches per optimizer step.
        device: Where batches go.
    """

    def __init__(
        self, loader: DataLoader[Any], world: World, seed: int, accumulation_steps: int, device: torch.device
    ) -> None:
        if loader.batch_size is None or not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
            raise ConfigurationError(
                "The loader must be a DataLoader(dataset, batch_size=..., shuffle=...) over a map-style dataset, "
                "because prepare deals the samples out itself, but it has the sampler "
                f"{type(loader.sampler).__name__}."
            )
        self.loader = loader
        self.device = device
        self.share = Share(world.rank, world.world_size, loader.batch_size, accumulation_steps)
        self.order = Order(len(loader.dataset), seed, isinstance(loader.sampler, RandomSampler))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return self._batches(OnePass(self.order.length, self.share), worker_seed=0)

    def __len__(self) -> int:
        return len(OnePass(self.order.length, self.share))

    def stream(self, start: int) -> Iterator[Any]:
        """This rank's micro-batches without end, from the global position `start` on."""
        return self._batches(EndlessBatches(self.order, self.share, start), worker_seed=start)

    def _batches(self, batches: Any, worker_seed: int) -> Iterator[Any]:
        loader = _rebuilt(self.loader, batches, worker_seed)
        return iter(loader) if self.device.type == "cpu" else (to_device(batch, self.device) for batch in loader)


def to_device(batch: Any, device: torch.device) -> Any:
    """The same nest of mappings and sequences, with its tensors on `device`."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.device == device else batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def _rebuilt(loader: DataLoader[Any], batches: Any, worker_seed: int) -> DataLoader[Any]:
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=_WorkerStart(loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=torch.Generator().manual_seed(worker_seed),  # its own: an iterator draws from it when it is made
    )


@dataclass(frozen=True)
class _WorkerStart:
    """Picklable, for workers that are spawned."""

    user: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        ignore_signals_in_worker()
        if self.user is not None:
            self.user(worker)

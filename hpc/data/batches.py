"""Which samples make up each of this rank's batches?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpc.data.order import SampleOrder
from hpc.data.rows import Rows
from hpc.data.share import Share


class EndlessBatches:
    """A batch sampler without end: epoch follows epoch, and one batch may hold the end of one and the next's start."""

    def __init__(self, order: SampleOrder, share: Share, start: int) -> None:
        self.order, self.share, self.start = order, share, start

    def __iter__(self) -> Iterator[list[Any]]:
        position, batches = self.start, -(-self.order.at_once // self.share.batch_size)
        while True:
            yield from _whole(self.order, self.share, position, batches)
            position += batches * self.share.samples


class OnePass:
    """A batch sampler that gives every sample of an epoch to one rank, once; all ranks get equally long batches.

    The last batches are shortened alike, and where even that leaves too few samples, a rank repeats the last one.

    Args:
        order: Of the samples.
        share: Which part of it is this rank's.
        epoch: Which one, counted from 0.
        start: Samples of it that all ranks together have had before.
        drop_last: Leave out the samples of an epoch that do not fill a batch on every rank.
    """

    def __init__(
        self, order: SampleOrder, share: Share, epoch: int = 0, start: int = 0, drop_last: bool = False
    ) -> None:
        self.order, self.share, self.start = order, share, start
        self.first = epoch * order.length
        self.stop = order.length - order.length % share.samples * drop_last

    def __iter__(self) -> Iterator[list[Any]]:
        share, at_once = self.share, -(-self.order.at_once // self.share.batch_size)
        whole = max(0, self.stop - self.start) // share.samples
        for number in range(0, whole, at_once):
            position = self.first + self.start + number * share.samples
            yield from _whole(self.order, share, position, min(at_once, whole - number))
        for rows in self.rows(whole):
            short = Share(share.rank, share.world_size, rows.held).positions(self.stop - sum(rows.samples), 1)[0]
            yield self.order.indices(self.first + short.clip(max=self.stop - 1)).tolist()

    def __len__(self) -> int:
        return -(-max(0, self.stop - self.start) // self.share.samples)

    def rows(self, skip: int = 0) -> Iterator[Rows]:
        """The rows of each batch, after those that are skipped."""
        ranks = range(self.share.world_size)
        for start in range(self.start + skip * self.share.samples, self.stop, self.share.samples):
            left = min(self.share.samples, self.stop - start)
            held = -(-left // len(ranks))
            yield Rows(held, tuple(max(0, min(held, left - rank * held)) for rank in ranks))


def _whole(order: SampleOrder, share: Share, start: int, batches: int) -> list[list[Any]]:
    positions = share.positions(start, batches)
    rows: list[list[Any]] = order.indices(positions.reshape(-1)).reshape(positions.shape).tolist()
    return rows

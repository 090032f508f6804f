"""The user's DataLoader, made to give each rank its part of one global order.

The position is one number, samples consumed by all ranks together, whatever their number: a global batch is cut into
(micro-batch, rank, slot), so a resumed run sees the very next one, and another world size sees the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from hpc.connect.process_group import ProcessGroup
from hpc.data.batches import EndlessBatches, OnePass
from hpc.data.deal import Deal, check_length, check_resumed, deal_of, position_of
from hpc.data.nest import on_device
from hpc.data.order import SampleOrder
from hpc.data.prepared import Prepared, evaluating
from hpc.data.rows import CurrentRows
from hpc.data.share import Share
from hpc.data.workers import Turns, numbered, reader
from hpc.errors import ConfigurationError


class PreparedLoader(Prepared):
    """What `Runtime.prepare` makes of a DataLoader over a map-style data set.

    Iterating it is one pass: every sample once, with equally many batches on all ranks; a loader that shuffles does so
    anew in each pass. Where the user's code makes whole batches (batch_size=None, a batch sampler of its own), these
    are dealt out, and counted, in place of samples.

    Args:
        loader: The user's.
        group: This rank among the others.
        seed: Of the order.
        current: Told which rows of each batch of a pass are samples.

    Raises:
        ConfigurationError: It cannot be dealt out, or is not the same on all ranks.
    """

    deal: Deal

    def __init__(self, loader: DataLoader[Any], group: ProcessGroup, seed: int, current: CurrentRows) -> None:
        deal = deal_of(loader, seed, group)
        super().__init__(loader, group, Share(group.world.rank, group.world.world_size, deal.batch_size), current)
        vars(self).update(deal=deal, _idle=[])

    @property
    def order(self) -> SampleOrder:
        """What is at each position."""
        return self.deal.order

    @property
    def samples_per_epoch(self) -> int:
        """Samples that all ranks together have in an epoch.

        Raises:
            ConfigurationError: With drop_last, no whole batch is left.
        """
        return self._pass(0, 0).stop

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return evaluating(self.epoch_stream(self._next_pass(), 0))

    def __len__(self) -> int:
        return len(OnePass(self.order, self.share, drop_last=self.deal.drop_last))

    def epoch_stream(self, epoch: int, start: int) -> Iterator[Any]:
        """This rank's micro-batches of one epoch, to its end.

        Args:
            epoch: Which one, counted from 0.
            start: Samples of it that all ranks together have had before.
        """
        batches = self._pass(epoch, start)
        read = self._read(batches, epoch * self.order.length + start)
        return self.current.follow(zip(batches.rows(), read, strict=True))

    def stream(self, start: int, positions: Sequence[Any] = ()) -> Iterator[Any]:
        """This rank's micro-batches without end, from the global position `start` on.

        Args:
            start: Samples that all ranks together have had before.
            positions: What `position` gave on every rank when the checkpoint was made.

        Raises:
            ConfigurationError: The data set is not the one of then.
        """
        self.check(positions)
        return self._read(EndlessBatches(self.order, self.share, start), start)

    def check(self, positions: Sequence[Any] = ()) -> None:
        """Compare the data set with what `position` gave on every rank when the checkpoint was made.

        Raises:
            ConfigurationError: The data set is not the one of then.
        """
        check_length(self.deal, self.loader)
        for position in positions[:1]:
            check_resumed(self.deal, position)

    def position(self) -> dict[str, Any]:
        """What must be the same when the run is resumed; where it goes on is a number of samples: see `stream`."""
        check_length(self.deal, self.loader)
        return position_of(self.deal)

    def _pass(self, epoch: int, start: int) -> OnePass:
        check_length(self.deal, self.loader)
        batches = OnePass(self.order, self.share, epoch, start, self.deal.drop_last)
        if not batches.stop:
            raise ConfigurationError(
                f"With drop_last=True an epoch must fill a batch on every rank, but {self.share.world_size} rank(s) × "
                f"{self.share.batch_size} sample(s) = {self.share.samples}, and there are {self.order.length}: use a "
                "smaller batch_size, fewer ranks, or drop_last=False."
            )
        return batches

    def _read(self, batches: Iterable[list[Any]], start: int) -> Iterator[Any]:
        """Batches on this rank's device; workers that are to live on are kept for whoever reads next."""
        inner, turns = self._idle.pop() if self._idle else self._reader()
        if self.deal.unit == "batches":
            batches = (entry for (entry,) in batches)
        if inner.num_workers:
            batches = numbered(batches, start + self.share.rank * self.share.batch_size, self.share.samples)
        turns.batches = batches
        try:
            yield from on_device(inner, self.device)
        finally:
            if inner.persistent_workers:
                self._idle.append((inner, turns))

    def _reader(self) -> tuple[DataLoader[Any], Turns]:
        turns = Turns()
        return reader(self.loader, turns, self.deal.unit == "items", self.deal.seed), turns

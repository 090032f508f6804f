"""Loaders over iterable-style data sets: each rank reads its own part, and knows by itself where in it it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from hpc.connect.process_group import ProcessGroup
from hpc.data.deal import check_reading
from hpc.data.loader import PreparedLoader
from hpc.data.nest import on_device, to_device
from hpc.data.prepared import Prepared, evaluating
from hpc.data.rows import Counting, CurrentRows, until_all_are_done
from hpc.data.share import Share
from hpc.data.workers import WorkerStart
from hpc.errors import ConfigurationError


def prepare_loader(
    loader: DataLoader[Any], group: ProcessGroup, seed: int, current: CurrentRows
) -> PreparedLoader | PreparedIterable:
    """Make a loader of either style fit this world; one that does already stays as it is.

    Raises:
        ConfigurationError: Its samples cannot be dealt out.
    """
    if isinstance(loader, (PreparedLoader, PreparedIterable)):
        return loader
    if isinstance(loader.dataset, IterableDataset):
        return PreparedIterable(loader, group, current)
    return PreparedLoader(loader, group, seed, current)


class PreparedIterable(Prepared):
    """What `Runtime.prepare` makes of a DataLoader over an iterable-style data set, which gives this rank's part only.

    Iterating it is one pass: a rank that has fewer batches than another repeats its last one, and
    `gather_for_metrics` leaves the repeated rows out.

    Args:
        loader: The user's; torchdata's StatefulDataLoader, or torch's over a data set with a state dict.
        group: This rank among the others.
        current: Told which rows of each batch of a pass are samples.
    """

    def __init__(self, loader: DataLoader[Any], group: ProcessGroup, current: CurrentRows) -> None:
        if loader.batch_size is None:
            raise ConfigurationError(
                "A loader over an iterable-style data set must have a batch_size, because the global batch is made "
                "of it, but has none: let the data set give samples, and the loader make batches."
            )
        check_reading(loader)
        super().__init__(loader, group, Share(group.world.rank, group.world.world_size, loader.batch_size), current)
        vars(self).update(_reader=_reader(loader), _epoch=0)

    @property
    def samples_per_epoch(self) -> int:
        """Raises ConfigurationError, because an iterable-style data set does not tell how many samples it gives."""
        raise ConfigurationError(
            "epochs takes a loader over a map-style data set, because an iterable-style one does not say how many "
            f"samples an epoch has, but got one over a {type(self.loader.dataset).__name__}: train by "
            "runtime.steps(loader, total=...)."
        )

    def epoch_stream(self, epoch: int, start: int) -> Iterator[Any]:
        """Raises ConfigurationError: see `samples_per_epoch`."""
        del epoch, start
        return iter(range(self.samples_per_epoch))

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._tell_epoch(self._next_pass())
        batches = until_all_are_done(iter(self._reader), self.group)
        return evaluating(self.current.follow((rows, to_device(batch, self.device)) for rows, batch in batches))

    def stream(self, start: int, positions: Sequence[Any] = ()) -> Iterator[Any]:
        """This rank's micro-batches without end; the data set is read again whenever it ends.

        Args:
            start: Not used: how many samples others have read says nothing about this rank's part.
            positions: What `position` gave on every rank when the checkpoint was made, by rank.

        Raises:
            ConfigurationError: The position cannot be saved, or is that of another number of ranks.
        """
        del start
        self.check(positions)
        if positions:
            mine = positions[self.share.rank]
            self._epoch = mine["epoch"]
            self._stateful().load_state_dict(mine["state"])
        return self._endless()

    def check(self, positions: Sequence[Any] = ()) -> None:
        """See whether training can go on from what `position` gave on every rank, if anything.

        Raises:
            ConfigurationError: The position cannot be saved, or is that of another number of ranks.
        """
        self._stateful()
        if positions and len(positions) != self.share.world_size:
            raise ConfigurationError(
                f"A run over an iterable-style data set must be resumed on as many ranks as saved it "
                f"({len(positions)}), because each knows its own position only, but this world has "
                f"{self.share.world_size}: ask for {len(positions)} ranks, or use a map-style data set."
            )

    def position(self) -> dict[str, Any]:
        """How far this rank has read, to be saved."""
        return {"epoch": self._epoch, "state": self._stateful().state_dict()}

    def _endless(self) -> Iterator[Any]:
        empty = False
        while True:
            self._tell_epoch(self._epoch)
            was_empty, empty = empty, True
            for batch in on_device((batch for _, batch in self._reader), self.device):
                empty = False
                yield batch
            if empty and was_empty:  # once is no mistake: the checkpoint may have been made at the end of the data
                raise ConfigurationError(
                    f"The iterable-style data set must give rank {self.share.rank} a batch to train on, but gave none."
                )
            self._epoch += 1

    def _tell_epoch(self, epoch: int) -> None:
        if hasattr(self.loader.dataset, "set_epoch"):
            self.loader.dataset.set_epoch(epoch)

    def _stateful(self) -> Any:
        """Who knows the position: the loader, or in its own process the data set."""
        if hasattr(self._reader, "load_state_dict"):
            return self._reader
        if hasattr(self.loader.dataset, "load_state_dict") and self.loader.num_workers == 0:
            return self.loader.dataset
        raise ConfigurationError(
            "To train on, an iterable-style data set must be able to say where it is, so that a resumed run goes on "
            f"there, but {type(self.loader.dataset).__name__} with num_workers={self.loader.num_workers} is not: use "
            "torchdata's StatefulDataLoader (pip install 'hpc[torchdata]'), or num_workers=0 and a data set with "
            "state_dict and load_state_dict."
        )


def _reader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of the user's loader that counts samples, and whose workers ignore stop signals."""
    reader = copy.copy(loader)
    reader.worker_init_fn = WorkerStart(loader.worker_init_fn)
    reader.collate_fn = Counting(loader.collate_fn)
    if loader.generator is None:
        reader.generator = torch.Generator()  # its own: an iterator draws from it when it is made
    return reader

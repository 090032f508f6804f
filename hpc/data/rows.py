"""Which rows of a batch are samples of the data set, when ranks get through unequal parts of it together?

Every rank takes the same number of batches, because a forward pass may be a collective (FSDP gathers weights in it,
DDP sends buffers). A rank that has no samples left repeats some, and `gather_for_metrics` leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import torch

from hpc.connect.process_group import ProcessGroup
from hpc.data.nest import tensors_of
from hpc.errors import ConfigurationError

NOTHING = object()
"""What a rank has after its last batch."""


@dataclass(frozen=True)
class Rows:
    """The rows of one batch of a pass.

    Args:
        held: Rows of this rank's batch, repeated ones included.
        samples: How many of them are samples, on every rank, by rank; those come first.
    """

    held: int
    samples: tuple[int, ...]

    def gather(self, value: torch.Tensor, gather: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Every rank's rows that are samples, rank after rank. Collective.

        Args:
            value: Shape [held x n, ...]: n rows for each row of the batch.
            gather: Joins equally long tensors of all ranks.

        Raises:
            ConfigurationError: The tensor has not so many rows for each row of the batch.
        """
        each, odd = divmod(value.shape[0], self.held) if value.dim() else (0, 1)
        if odd or not each:
            raise ConfigurationError(
                f"gather_for_metrics takes tensors with a row for each of the batch's {self.held} samples, "
                f"but got one of shape {tuple(value.shape)}: do not reduce over samples before, or use gather."
            )
        longest = max(self.samples) * each
        parts = torch.split(gather(_lengthened(value[:longest], longest)), longest)
        return torch.cat([part[: count * each] for part, count in zip(parts, self.samples, strict=True)])


@dataclass
class CurrentRows:
    """The rows of the batch that is being worked on; None in training, where no row is repeated."""

    rows: Rows | None = None

    def follow(self, batches: Iterator[tuple[Rows, Any]]) -> Iterator[Any]:
        """The batches alone; passes may be nested."""
        outer = self.rows
        try:
            for rows, batch in batches:
                self.rows = rows
                yield batch
        finally:
            self.rows = outer


def until_all_are_done(batches: Iterator[Any], group: ProcessGroup) -> Iterator[tuple[Rows, Any]]:
    """Batches on every rank until none has any left; ranks compare notes before each. Collective.

    Args:
        batches: This rank's, however many there are.
        group: All ranks.
    """
    filler = NOTHING
    for batch in chain(batches, repeat(NOTHING)):
        here = 0 if batch is NOTHING else row_count(batch)
        samples = tuple(group.collect(here))
        if not any(samples):
            return
        if filler is NOTHING:
            filler = _first_batch(batch, samples, group)
        filler = filler if batch is NOTHING else batch
        yield Rows(row_count(filler), samples), filler


def row_count(batch: Any) -> int:
    """Rows of a batch: those of its first tensor; 1 where there is none."""
    return next((tensor.shape[0] for tensor in tensors_of(batch) if tensor.dim()), 1)


def _first_batch(batch: Any, samples: tuple[int, ...], group: ProcessGroup) -> Any:
    """This rank's own, or for a rank whose part of the data is empty, another's."""
    if 0 not in samples:
        return batch
    giver = next(rank for rank, count in enumerate(samples) if count)
    given = group.collect(batch if group.world.rank == giver else None)[giver]
    return given if batch is NOTHING else batch


def _lengthened(value: torch.Tensor, length: int) -> torch.Tensor:
    missing = length - value.shape[0]
    return torch.cat([value, value.new_zeros(missing, *value.shape[1:])]) if missing else value

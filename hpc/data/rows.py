"""Which rows of a batch are samples of the data set, when ranks get through unequal parts of it together?

Every rank takes the same number of batches, because a forward pass may be a collective (FSDP gathers weights in it,
DDP sends buffers). A rank that has no samples left repeats some, and `gather_for_metrics` leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, NamedTuple

from hpc.connect.process_group import ProcessGroup
from hpc.errors import ConfigurationError


@dataclass(frozen=True)
class Rows:
    """The rows of one batch of a pass.

    Args:
        held: Rows of this rank's batch, repeated ones included.
        samples: How many of them are samples, on every rank, by rank; those come first.
    """

    held: int
    samples: tuple[int, ...]

    def kept(self, shape: tuple[int, ...], rank: int) -> int:
        """How many rows of a value are those of samples; they come first.

        Args:
            shape: [held x n, ...]: n rows for each row of the batch.
            rank: Whose value.

        Raises:
            ConfigurationError: The number of rows of the value does not fit the batch.
        """
        each, odd = divmod(shape[0], self.held) if shape else (0, 1)
        if odd or not each:
            raise ConfigurationError(
                f"gather_for_metrics takes values with a row for each of the batch's {self.held} samples, "
                f"but got one of shape {shape}: do not reduce over samples before, or use gather."
            )
        return self.samples[rank] * each


class _Pass:
    """A pass that is under way."""

    rows: Rows
    """Of its batch at hand."""
    is_beside: bool = False
    """Whether another one goes on while this one is under way, as in zip(a, b): neither is inside the other."""


class CurrentRows:
    """The rows of the batch that is being worked on."""

    def __init__(self) -> None:
        self._passes: list[_Pass] = []

    @property
    def rows(self) -> Rows | None:
        """Of the innermost pass; None in training, and wherever no row is repeated.

        Raises:
            ConfigurationError: Passes go on side by side, and repeat other rows.
        """
        if not self._passes or not self._passes[-1].is_beside:
            return self._passes[-1].rows if self._passes else None
        beside = [each.rows for each in self._passes if each.is_beside]
        if all(each == beside[0] for each in beside):
            return beside[0]
        if any(len({*each.samples}) > 1 for each in beside):
            raise ConfigurationError(
                "gather_for_metrics must know whose rows it gets, because the last batches of a pass repeat samples, "
                "but passes over several loaders go on side by side: let one data set give both, or use gather."
            )
        return None

    def follow(self, batches: Iterator[tuple[Rows, Any]]) -> Iterator[Any]:
        """The batches alone; passes may be nested, or go on side by side."""
        mine = _Pass()
        try:
            for mine.rows, batch in batches:
                if mine not in self._passes:
                    self._passes.append(mine)
                for other in self._passes[self._passes.index(mine) + 1 :]:
                    other.is_beside = mine.is_beside = True
                yield batch
        finally:
            if mine in self._passes:
                self._passes.remove(mine)


class Counted(NamedTuple):
    """A batch, and of how many samples it was made; a tuple, so that pinning memory goes into it."""

    samples: int
    batch: Any


@dataclass(frozen=True)
class Counting:
    """A collate_fn that counts. Picklable, for spawned workers.

    Args:
        collate: The user's.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Counted:
        """Make a batch of samples."""
        return Counted(len(samples), self.collate(samples))


def until_all_are_done(batches: Iterator[Counted], group: ProcessGroup) -> Iterator[tuple[Rows, Any]]:
    """Batches on every rank until none has any left; ranks compare notes before each. Collective.

    Args:
        batches: This rank's, however many there are.
        group: All ranks.
    """
    filler: Counted | None = None
    for counted in chain(batches, repeat(None)):
        samples = tuple(group.all_gather(counted.samples if counted else 0))
        if not any(samples):
            return
        if filler is None:
            filler = _first(counted, samples, group)
        filler = counted or filler
        yield Rows(filler.samples, samples), filler.batch


def _first(counted: Counted | None, samples: tuple[int, ...], group: ProcessGroup) -> Counted:
    """This rank's first batch, or another rank's where this rank's part of the data is empty."""
    if 0 not in samples and counted is not None:
        return counted
    giver = next(rank for rank, count in enumerate(samples) if count)
    given: Counted = group.all_gather(counted if group.world.rank == giver else None)[giver]
    return counted or given

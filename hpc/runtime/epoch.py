"""What does a loop over epochs hand out? A number that is iterated for its micro-batches, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hpc.errors import ConfigurationError


class Epoch(int):
    """The number of an epoch, from 0; iterating it gives the micro-batches that are left of it."""

    _take: Callable[[], Iterator[Any]]
    _current: Callable[[], int]
    _was_begun = _was_taken = False

    @classmethod
    def of(cls, number: int, take: Callable[[], Iterator[Any]], current: Callable[[], int]) -> Epoch:
        """The epoch that a loop is in.

        Args:
            number: Which one.
            take: Gives the micro-batches that are left of it.
            current: Which epoch the loop is in now.
        """
        epoch = cls(number)
        epoch._take, epoch._current = take, current
        return epoch

    def __iter__(self) -> Iterator[Any]:
        if self._current() != self:
            raise ConfigurationError(f"Epoch {int(self)} is over: iterate it inside the loop over runtime.epochs.")
        if self._was_taken:
            raise ConfigurationError(
                f"Epoch {int(self)} has given all its micro-batches: iterate the prepared loader for another look at "
                "the data, or let runtime.epochs have more epochs."
            )
        self._was_begun = True
        return self._batches()

    def check_taken(self) -> None:
        """Refuse a loop that goes past the epochs' micro-batches.

        Raises:
            ConfigurationError: It has.
        """
        if not self._was_begun:
            raise ConfigurationError(
                "A loop over runtime.epochs must take its micro-batches from the epoch, so that they are counted and "
                f"saved, but epoch {int(self)} was not iterated: write `for epoch in runtime.epochs(loader, total=...):"
                "` and inside of it `for batch in epoch:`."
            )

    def _batches(self) -> Iterator[Any]:
        yield from self._take()
        self._was_taken = True

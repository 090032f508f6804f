"""Who saves and loads a checkpoint together, and how do all hear of what one could not do?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from hpc.errors import SaveError
from hpc.world import World

_T = TypeVar("_T")


class Group(Protocol):
    """The ranks that save and load together, and plain values between them."""

    @property
    def world(self) -> World:
        """Which of them this is."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on rank 0; elsewhere an empty list. Collective."""
        ...

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Collective."""
        ...


def outcome_of(action: Callable[[], _T]) -> _T | SaveError:
    """A SaveError as a value, so that it can be told to other ranks."""
    try:
        return action()
    except SaveError as error:
        return error


def raised(outcome: Any) -> Any:
    """What an action returned.

    Raises:
        SaveError: What it ended with.
    """
    if isinstance(outcome, SaveError):
        raise outcome
    return outcome

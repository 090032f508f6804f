"""In which order does the user's sampler want its samples, as a function of the position alone?

torch's own samplers have one that needs no list. Any other is asked for an epoch at a time, with the generators
seeded by that epoch, so that whoever resumes there gets the very same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from hpc.connect.process_group import ProcessGroup
from hpc.data.draws import drawing
from hpc.data.order import AT_ONCE, Order, Positions, SampleOrder, uniform
from hpc.errors import ConfigurationError


def order_of(sampler: Iterable[Any], seed: int, group: ProcessGroup) -> SampleOrder:
    """The order that a sampler asks for.

    Args:
        sampler: torch's, or any other that has a length and gives the same every time the generators are seeded alike.
        seed: Of the order; a sampler's own generator counts instead.
        group: Ranks that must all get the same.

    Raises:
        ConfigurationError: It cannot be dealt out to ranks, or not resumed.
    """
    if isinstance(sampler, DistributedSampler):
        raise ConfigurationError(
            "The loader must leave dealing to ranks to prepare, but has the sampler "
            f"{type(sampler).__name__}: leave it away, give DataLoader(..., shuffle={sampler.shuffle}) instead, and "
            "call set_epoch, where it is called at all, on the prepared loader."
        )
    generator = getattr(sampler, "generator", None)
    seed = generator.initial_seed() if isinstance(generator, torch.Generator) else seed
    kind = type(sampler)
    if isinstance(sampler, SequentialSampler) and kind.__iter__ is SequentialSampler.__iter__:
        return Order(length_of(sampler.data_source), seed, shuffle=False)
    if isinstance(sampler, RandomSampler) and kind.__iter__ is RandomSampler.__iter__:
        return _of_random(sampler, seed)
    if isinstance(sampler, SubsetRandomSampler) and kind.__iter__ is SubsetRandomSampler.__iter__:
        samples = np.asarray(sampler.indices, dtype=np.int64)
        return Chosen(Order(len(samples), seed, shuffle=True), samples)
    if (
        isinstance(sampler, WeightedRandomSampler)
        and kind.__iter__ is WeightedRandomSampler.__iter__
        and sampler.replacement
    ):
        return Draws(sampler.num_samples, seed, _cumulative(sampler.weights))
    return Listed(sampler, seed, group)


@dataclass(frozen=True)
class Chosen:
    """Some samples of a data set, shape [length], in an order of their own: position p gives `samples[order[p]]`."""

    order: Order
    samples: NDArray[np.int64]

    @property
    def length(self) -> int:
        """How many they are."""
        return self.order.length

    @property
    def at_once(self) -> int:
        """As many as of their order."""
        return self.order.at_once

    def indices(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample is seen at each position."""
        return self.samples[self.order.indices(positions)]


@dataclass(frozen=True)
class Several:
    """Epochs shorter or longer than the data set: the beginning of one shuffled order, or several orders in turn."""

    order: Order
    length: int

    @property
    def at_once(self) -> int:
        """As many as of one order."""
        return self.order.at_once

    def indices(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample is seen at each position."""
        epochs, offsets = np.divmod(positions, np.uint64(self.length))
        orders = -(-self.length // self.order.length)
        return self.order.indices(epochs * np.uint64(orders * self.order.length) + offsets)


@dataclass(frozen=True)
class Draws:
    """Draws with replacement, each a function of its position.

    Args:
        length: Draws in an epoch.
        seed: Another seed draws others.
        cumulative: Shape [samples], weights summed up; a sample is drawn as often as it adds to the sum.
    """

    length: int
    seed: int
    cumulative: NDArray[np.float64]
    at_once: int = AT_ONCE

    def indices(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample is drawn at each position."""
        below = np.nextafter(self.cumulative[-1], 0)  # rounding may end at the sum itself
        drawn = np.minimum(uniform(self.seed, positions) * self.cumulative[-1], below)
        samples: NDArray[np.int64] = np.searchsorted(self.cumulative, drawn, side="right").astype(np.int64)
        return samples


class Listed:
    """What a sampler of the user's own gives, an epoch at a time; collective when an epoch is drawn.

    Args:
        sampler: Told the epoch, where it has `set_epoch`.
        seed: Of the generators while it draws.
        group: Ranks that must all get the same.

    Raises:
        ConfigurationError: It has no length, or does not give the same for the same epoch.
    """

    at_once = 1  # not drawn ahead: the user may change the sampler by what this epoch has shown

    def __init__(self, sampler: Iterable[Any], seed: int, group: ProcessGroup) -> None:
        self.sampler, self.seed, self.group = sampler, seed, group
        self.length = length_of(sampler)
        self.digest = digest_of(self._drawn(0).tolist())
        if self.digest != digest_of(self._drawn(0).tolist()):
            raise ConfigurationError(
                f"The sampler {type(sampler).__name__} must give the same whenever it draws the same epoch, so that a "
                "resumed run goes on where it was, but has given something else the second time: let it draw from "
                "torch's, NumPy's or Python's global generator, which are seeded for each epoch, or from one that "
                "its set_epoch(epoch) seeds."
            )
        self._of_epoch = lru_cache(maxsize=2)(self._compared)  # a batch may hold the end of one and the next's start

    def indices(self, positions: Positions) -> NDArray[Any]:
        """What the sampler gives at each position."""
        epochs, offsets = np.divmod(positions, np.uint64(self.length))
        result = np.empty(positions.shape, dtype=object)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._of_epoch(int(epoch))[offsets[here]]
        return result

    def _compared(self, epoch: int) -> NDArray[Any]:
        drawn = self._drawn(epoch)
        digests = self.group.all_gather(digest_of(drawn.tolist()))
        odd = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
        if odd is not None:
            raise ConfigurationError(
                f"The sampler {type(self.sampler).__name__} must give the same on all ranks, because prepare deals it "
                f"out, but in epoch {epoch} it gave rank {odd} something else than rank 0."
            )
        return drawn

    def _drawn(self, epoch: int) -> NDArray[Any]:
        """Of one epoch, shape [length]; an entry is whatever the sampler gives, a list of indices included."""
        with drawing(self.seed, epoch, getattr(self.sampler, "generator", None)):
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            entries = list(islice(self.sampler, self.length + 1))
        if len(entries) != self.length:
            raise ConfigurationError(
                f"The sampler {type(self.sampler).__name__} must give as many entries as its length says "
                f"({self.length}), but gave {'more' if len(entries) > self.length else len(entries)} in epoch {epoch}."
            )
        drawn = np.empty(self.length, dtype=object)
        for place, entry in enumerate(entries):
            drawn[place] = entry.tolist() if isinstance(entry, (torch.Tensor, np.ndarray, np.generic)) else entry
        return drawn


def _of_random(sampler: RandomSampler, seed: int) -> SampleOrder:
    samples = length_of(sampler.data_source)
    if sampler.replacement:
        return Draws(sampler.num_samples, seed, np.arange(1, samples + 1, dtype=np.float64))
    order = Order(samples, seed, shuffle=True)
    return order if sampler.num_samples == samples else Several(order, sampler.num_samples)


def _cumulative(weights: torch.Tensor) -> NDArray[np.float64]:
    each = weights.detach().cpu().double().numpy()
    if each.ndim != 1 or not np.isfinite(each).all() or (each < 0).any() or not each.sum() > 0:
        raise ConfigurationError(
            "The weights of a WeightedRandomSampler must be finite numbers of at least 0, one for each sample, and not "
            f"all 0, but are {weights}."
        )
    return np.cumsum(each)


def length_of(sized: Any) -> int:
    """How many entries there are.

    Raises:
        ConfigurationError: It does not say.
    """
    try:
        return len(sized)
    except (TypeError, NotImplementedError, AttributeError) as error:
        raise ConfigurationError(
            f"To be dealt out to ranks, a {type(sized).__name__} must say how many entries it has, but len() of it "
            f"fails ({error}): give it a __len__, or use an IterableDataset."
        ) from error


def digest_of(value: Any) -> str:
    """A few letters that tell one order from another."""
    return hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()[:16]

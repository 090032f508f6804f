"""In which order samples are seen: a permutation that is a function of a counter.

Position p of epoch e under seed s is one evaluation: no list of indices, no generator state, nothing to replay.
A Feistel network over the next power of two is a bijection whatever its round function; walking the cycle until the
result falls below n makes it one on n, in less than two evaluations on average (Black and Rogaway, "Ciphers with
Arbitrary Finite Domains", CT-RSA 2002). Its halves differ by one bit where the power is odd. The round function is
splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.uint64]

AT_ONCE = 8192
"""Indices are computed for at least this many samples at once, because every call of NumPy costs time."""

ROUNDS, ROUNDS_OF_FEW = 6, 18
FEW_BITS = 12
"""Halves of a few bits take more rounds to mix: with 6, permutations of 6 samples differ in frequency, with 18 not."""
GOLDEN = 0x9E3779B97F4A7C15
MASK_64 = (1 << 64) - 1
STIRS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
LAST_SHIFT = np.uint64(31)


class SampleOrder(Protocol):
    """What is at each position, over all epochs; the same on every rank."""

    @property
    def length(self) -> int:
        """Positions in an epoch."""

    @property
    def at_once(self) -> int:
        """How many positions are worth asking for in one go."""

    def indices(self, positions: Positions) -> NDArray[Any]:
        """What the data set is asked for at each position; the same shape [n]."""


@dataclass(frozen=True)
class Order:
    """The order of one data set over all epochs; memory and seek are O(1).

    Args:
        length: Samples in the data set.
        seed: Another seed is another order.
        shuffle: False sees them as they lie, every epoch.
    """

    length: int
    seed: int
    shuffle: bool

    @property
    def at_once(self) -> int:
        """An epoch at most, since each is computed by itself."""
        return min(AT_ONCE, self.length)

    def indices(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample is seen at each position.

        Args:
            positions: Shape [n], samples seen before, counted over all epochs and all ranks.

        Returns:
            Shape [n], indices into the data set.
        """
        if positions.size == 0:
            return positions.astype(np.int64)
        first, last = int(positions.min()) // self.length, int(positions.max()) // self.length
        if first == last:  # nearly always; dividing every position would take a fifth of the time
            return self._of_epoch(positions - np.uint64(first * self.length), first)
        epochs, offsets = np.divmod(positions, np.uint64(self.length))
        result = np.empty(positions.shape, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._of_epoch(offsets[here], int(epoch))
        return result

    def _of_epoch(self, offsets: Positions, epoch: int) -> NDArray[np.int64]:
        return (self._permuted(offsets, epoch) if self.shuffle else offsets).view(np.int64)

    def _permuted(self, offsets: Positions, epoch: int) -> Positions:
        bits = max(1, (self.length - 1).bit_length())
        keys = _round_keys(self.seed, epoch, ROUNDS_OF_FEW if bits <= FEW_BITS else ROUNDS)
        values = _feistel(offsets, keys, bits)
        outside = np.flatnonzero(values >= self.length)
        while outside.size:
            values[outside] = _feistel(values[outside], keys, bits)
            outside = outside[values[outside] >= self.length]
        return values


def uniform(seed: int, positions: Positions) -> NDArray[np.float64]:
    """A number in [0, 1) for each position, each a draw of its own: shape [n]."""
    (key,) = _round_keys(seed, -1, 1)  # of no epoch: nothing in common with an order of the same seed
    return (_mix(positions * np.uint64(GOLDEN) + key) >> np.uint64(11)).astype(np.float64) / 2.0**53


def _feistel(values: Positions, keys: list[np.uint64], bits: int) -> Positions:
    low = np.uint64(bits // 2)
    left, right = values >> low, values & _ones(bits // 2)
    scratch = np.empty_like(left), np.empty_like(left)
    for number, key in enumerate(keys):
        if number % 2:
            right ^= _mixed(left, key, scratch) & _ones(bits // 2)
        else:
            left ^= _mixed(right, key, scratch) & _ones(bits - bits // 2)
    return (left << low) | right


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)


def _mixed(values: Positions, key: np.uint64, scratch: tuple[Positions, Positions]) -> Positions:
    """The round function, in memory that is there already: fresh pages take longer than the arithmetic."""
    mixed, shifted = scratch
    np.add(values, key, out=mixed)
    for shift, factor in STIRS:
        np.right_shift(mixed, shift, out=shifted)
        np.bitwise_xor(mixed, shifted, out=mixed)
        np.multiply(mixed, factor, out=mixed)
    np.right_shift(mixed, LAST_SHIFT, out=shifted)
    return np.bitwise_xor(mixed, shifted, out=mixed)


def _mix(values: Positions) -> Positions:
    return _mixed(values, np.uint64(0), (np.empty_like(values), np.empty_like(values)))


def _round_keys(seed: int, epoch: int, rounds: int) -> list[np.uint64]:
    start = np.array([(seed * GOLDEN + epoch) & MASK_64], dtype=np.uint64)
    base = int(_mix(_mix(start) + np.uint64(GOLDEN))[0])
    counters = np.array([(base + number * GOLDEN) & MASK_64 for number in range(1, rounds + 1)], dtype=np.uint64)
    return list(_mix(counters))

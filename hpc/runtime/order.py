"""In which order samples are seen: a permutation that is a function of a counter.

Position p of epoch e under seed s is one evaluation: no list of indices, no generator state, nothing to replay.
A balanced Feistel network over the next even power of two is a bijection whatever its round function; walking the
cycle until the result falls below n makes it one on n (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
CT-RSA 2002). The round function is splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.uint64]

ROUNDS = 6
GOLDEN = 0x9E3779B97F4A7C15
MASK_64 = (1 << 64) - 1


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

    def indices(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample is seen at each position.

        Args:
            positions: Shape [n], samples seen before, counted over all epochs and all ranks.

        Returns:
            Shape [n], indices into the data set.
        """
        epochs, offsets = np.divmod(positions, np.uint64(self.length))
        if not self.shuffle:
            return offsets.astype(np.int64)
        result = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._permuted(offsets[here], int(epoch))
        return result.astype(np.int64)

    def _permuted(self, offsets: Positions, epoch: int) -> Positions:
        bits = max(1, (self.length - 1).bit_length() + 1 >> 1)
        keys = _round_keys(self.seed, epoch)
        values = _feistel(offsets, keys, bits)
        outside = np.flatnonzero(values >= self.length)
        while outside.size:
            values[outside] = _feistel(values[outside], keys, bits)
            outside = outside[values[outside] >= self.length]
        return values


def _feistel(values: Positions, keys: list[np.uint64], bits: int) -> Positions:
    shift, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << shift) | right


def _mix(values: Positions) -> Positions:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    start = np.array([(seed * GOLDEN + epoch) & MASK_64], dtype=np.uint64)
    base = int(_mix(_mix(start) + np.uint64(GOLDEN))[0])
    counters = np.array([(base + number * GOLDEN) & MASK_64 for number in range(1, ROUNDS + 1)], dtype=np.uint64)
    return list(_mix(counters))

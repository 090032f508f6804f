"""Which part of every micro-batch is this rank's?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc.errors import ConfigurationError


@dataclass(frozen=True)
class Share:
    """Which part of every micro-batch is this rank's.

    Args:
        rank: Which rank.
        world_size: Of how many.
        batch_size: Samples per rank and micro-batch.
    """

    rank: int
    world_size: int
    batch_size: int

    @property
    def samples(self) -> int:
        """Samples per micro-batch, all ranks together."""
        return self.world_size * self.batch_size

    def positions(self, start: int, micro_batches: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Global positions of this rank's next micro-batches.

        Args:
            start: Samples consumed by all ranks before.
            micro_batches: How many.

        Returns:
            Shape [micro_batches, batch_size].
        """
        slots = np.arange(self.batch_size, dtype=np.uint64) + np.uint64(self.rank * self.batch_size)
        starts = np.arange(micro_batches, dtype=np.uint64) * np.uint64(self.samples)
        return np.uint64(start) + starts[:, None] + slots[None, :]

    def accumulation_steps(self, global_batch_size: int) -> int:
        """Micro-batches that make up a global batch.

        Raises:
            ConfigurationError: No whole number of them does.
        """
        steps, rest = divmod(global_batch_size, self.samples)
        if rest:
            raise ConfigurationError(
                f"The global batch must stay the {global_batch_size} samples this run was started with, but "
                f"{self.world_size} rank(s) × {self.batch_size} sample(s) = {self.samples}, and {global_batch_size} / "
                f"{self.samples} = {global_batch_size / self.samples:.4g} is not a whole number of micro-batches: "
                f"{self._advice(global_batch_size)}."
            )
        return steps

    def _advice(self, global_batch_size: int) -> str:
        batches, rest = divmod(global_batch_size, self.batch_size)
        if rest:
            return f"use a batch_size that divides {global_batch_size}"
        fitting = [str(ranks) for ranks in range(1, batches + 1) if batches % ranks == 0]
        return f"resume with {', '.join(fitting)} rank(s)"

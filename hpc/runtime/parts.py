"""What a Runtime has built, for those of its parts that need several others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.checkpoint.state import TrainingState
from hpc.config import Settings
from hpc.connect.process_group import ProcessGroup
from hpc.run.journal import Journal
from hpc.runtime.finite import Finite
from hpc.stop.requests import StopRequests
from hpc.strategy import Strategy
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.tracking.trackers import Tracker


@dataclass(frozen=True)
class Parts:
    """The parts of one Runtime.

    Args:
        config: As the user gave it.
        settings: What hpc reads of it.
        directory: The run's.
        journal: Told what happens to it.
        group: This rank among the others.
        requests: Whether this process was told to stop.
        precision: Of all models.
        window: Where in an accumulation window the loop is.
        state: What checkpoints hold.
        strategy: How ranks share a step.
        finite: Whether this rank's losses were.
        trackers: Where curves go.
    """

    config: Any
    settings: Settings
    directory: Path
    journal: Journal
    group: ProcessGroup
    requests: StopRequests
    precision: Precision
    window: Window
    state: TrainingState
    strategy: Strategy
    finite: Finite
    trackers: Sequence[Tracker]

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.group.world.rank == 0

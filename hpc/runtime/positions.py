"""Where is each loop of a run, at a step boundary?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

MAIN = "main"
"""The loop that is given no name."""


@dataclass
class LoopPosition:
    """Where one loop is.

    Args:
        step: Optimizer steps it has taken.
        samples: Samples that all ranks together have consumed; of an epoch, where the loop is over epochs.
        global_batch_size: Samples of one step; 0 before the first life has begun it.
        epoch: The epoch at hand, from 0.
        ended: Why the loop came to an end before its last step; empty while it did not.
    """

    step: int = 0
    samples: int = 0
    global_batch_size: int = 0
    epoch: int = 0
    ended: str = ""


class RunningLoop(Protocol):
    """What is asked of the loop at hand."""

    @property
    def name(self) -> str:
        """What its position is called."""
        ...

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all."""
        ...

    def own_position(self) -> Any:
        """What this rank alone knows: where its loader is."""
        ...

    def settle(self) -> None:
        """Come to an end, if the user has left it."""
        ...


class Positions:
    """The positions of all loops by name, as a checkpoint holds them: shared by all ranks, and this rank's own.

    Args:
        trainer: The content of trainer.pt; None in a run that begins.
        rank: This one.

    Attributes:
        own: What this rank's loaders said at the end of loops that are over, by loop.
    """

    def __init__(self, trainer: Mapping[str, Any] | None = None, rank: int = 0) -> None:
        trainer = trainer or {}
        self.loops = {name: LoopPosition(**fields) for name, fields in _loops(trainer).items()}
        self._saved = [_own(each["position"]) for each in trainer.get("ranks", [])]
        self.own: dict[str, Any] = dict(self._saved[rank]) if rank < len(self._saved) else {}

    def of(self, name: str) -> LoopPosition:
        """The position of a loop; a new one where it has not begun."""
        return self.loops.setdefault(name, LoopPosition())

    def of_ranks(self, name: str) -> list[Any]:
        """What each rank's loader said when the checkpoint was made, by rank; nothing in a loop that begins."""
        return [own[name] for own in self._saved if name in own]

    def keep_own(self, name: str, position: Any) -> None:
        """Remember where this rank's loader is at the end of a loop."""
        self.own[name] = position

    def shared(self) -> dict[str, Any]:
        """What all ranks have in common, to be saved."""
        return {name: asdict(position) for name, position in self.loops.items()}


def _loops(trainer: Mapping[str, Any]) -> Mapping[str, dict[str, Any]]:
    """Checkpoints of version 0.1 knew one loop, without a name."""
    if "loops" in trainer or not trainer:
        loops: Mapping[str, dict[str, Any]] = trainer.get("loops", {})
        return loops
    return {MAIN: {name: trainer[name] for name in ("step", "samples", "global_batch_size")}}


def _own(position: Any) -> dict[str, Any]:
    """Checkpoints of version 0.1 held the position of the one loader, which was None where all ranks share it."""
    if isinstance(position, Mapping) and position.keys() == {"loops"}:
        return dict(position["loops"])
    return {MAIN: position}

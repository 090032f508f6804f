"""What is trained, the same for every library, and what happens to it inside a rank."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

STEPS = 60
SAVE_EVERY = 10
BATCH = 4
"""Samples of one rank in one step."""
MARK = torch.arange(16) + 0.5
"""Weights that training leaves as they are, by which a file of weights is known."""
RANKS = 2
SIGNALLED_STEP = 15
CRASHING_STEP = 3


@dataclass(frozen=True)
class Conditions:
    """What one run is told, whichever library runs it.

    Args:
        run: Where the library keeps what it saves.
        trace: Where the ranks tell their steps, and rank 0 its result.
        step_seconds: That a step takes longer than it needs.
        fault: What a rank does to itself: "signal in backward", "crash early" or nothing.
        ballast: Further parameters, which stay as they are and make checkpoints large.
        signal: That asks this library to save and to leave.
    """

    run: str
    trace: str
    step_seconds: float = 0.3
    fault: str = ""
    ballast: int = 0
    signal: int = int(signal.SIGUSR2)

    def words(self) -> str:
        """As one argument of a program."""
        return json.dumps(asdict(self))

    def tell(self, rank: int, step: int) -> None:
        """Write down that a step has been taken, and take one's time; in a step that is to crash, crash."""
        folder = Path(self.trace)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"rank_{rank}.txt").open("a") as file:
            file.write(f"{step}\n")
        time.sleep(self.step_seconds)
        if self.fault == "crash early" and rank == 1 and step == CRASHING_STEP:
            os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, model: nn.Module) -> None:
        """Write down the result, whole or not at all."""
        weights = {
            name: tensor[: len(MARK)] if "ballast" in name else tensor for name, tensor in model.state_dict().items()
        }
        whole = Path(self.trace) / "result.tmp"
        torch.save(weights, whole)
        whole.rename(whole.with_suffix(".pt"))


class Points(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random points of R^16 in four classes; sample i is a function of i."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = torch.randn(16, generator=torch.Generator().manual_seed(index))
        return point, point[:4].argmax()


class Net(nn.Module):
    """A small classifier; without dropout, because not every library keeps the state of the random numbers."""

    def __init__(self, conditions: Conditions) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.ballast = nn.Parameter(torch.cat([MARK, torch.zeros(conditions.ballast)]))
        self._conditions = conditions
        self._steps = 0

    def forward(self, points: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """The loss: the mean over a batch."""
        loss = nn.functional.cross_entropy(self.layers(points), classes) + 0.0 * self.ballast.sum()
        self._steps += 1
        if self._conditions.fault == "signal in backward" and self._steps == SIGNALLED_STEP and _is_first_life():
            loss.register_hook(self._signal_oneself)  # type: ignore[no-untyped-call]
        return loss

    def _signal_oneself(self, _: torch.Tensor) -> None:
        os.kill(os.getpid(), self._conditions.signal)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The same for everybody."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def _is_first_life() -> bool:
    return os.environ.get("SLURM_RESTART_COUNT", "0") == "0"

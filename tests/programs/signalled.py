"""Training that is told to stop in a phase of its choice, once: `cfg.job.phase` on rank 1, in its first life."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from hpc import Runtime

STEPS, STEP = 80, 5
STEP_SECONDS = 0.05
"""So that ranks compare notes several times before the end: they do so twice a second."""


class Once:
    """Sends signals to this process when its phase comes, unless an earlier life has.

    Args:
        cfg: Of the run.
        rank: This one.
    """

    def __init__(self, cfg: Any, rank: int) -> None:
        self.phase, self.mark = cfg.job.phase if rank == 1 else "", Path(cfg.run_dir) / "signalled"

    def at(self, phase: str, *signals: int) -> None:
        """Now it is in this phase."""
        if phase == self.phase and not self.mark.exists():
            self.mark.touch()
            for number in signals:
                os.kill(os.getpid(), number)


class Points(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random points of R^4; says when the first is read."""

    def __init__(self, once: Once) -> None:
        self.once = once

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.once.at("data", signal.SIGUSR2, signal.SIGTERM)
        point = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return point, point.sum()


def train(cfg: Any) -> list[float]:
    """Fit a sum, and evaluate inside the loop and after it; the values of all evaluations."""
    with Runtime(cfg) as runtime:
        once = Once(cfg, runtime.process_index)
        once.at("building", signal.SIGTERM, signal.SIGTERM)
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        trained, held_out = (DataLoader(Points(once), batch_size=4, shuffle=shuffle) for shuffle in (True, False))
        model, optimizer, trained, held_out = runtime.prepare(model, optimizer, trained, held_out)

        def evaluate() -> float:
            total = torch.zeros(())
            for points, sums in held_out:
                once.at("evaluating", *[signal.SIGUSR2] * 100)
                total += runtime.gather_for_metrics((model(points)[:, 0] - sums).square()).sum().detach()
            return float(total)

        for points, sums in runtime.steps(trained, total=STEPS):
            loss = (model(points)[:, 0] - sums).square().mean()
            is_due = runtime.step == STEP
            time.sleep(STEP_SECONDS)
            if is_due:
                loss.register_hook(lambda _: once.at("backward", signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM))
            runtime.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if is_due:
                _in_a_collective(runtime, once)
                runtime.log(held_out=evaluate())
        return [evaluate()]


def _in_a_collective(runtime: Runtime, once: Once) -> None:
    """Rank 1 gets its signal while it waits for rank 0."""
    if runtime.process_index == 0:
        time.sleep(1.0)
    later = threading.Timer(0.3, once.at, ["collective", signal.SIGTERM])
    later.start()
    runtime.wait_for_everyone()
    later.join()

"""What two ranks do at their step boundaries; rank 0 writes each answer into answers.json, by its question."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import HpcError

LEFT_OUT = "left out"
Each = Callable[[Runtime, int], Any]


def data() -> TensorDataset:
    """Sixty-four points of the plane."""
    return TensorDataset(torch.randn(64, 2, generator=torch.Generator().manual_seed(1)))


def loop(runtime: Runtime, total: int = 20, **options: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    """A small regression; yields the optimizer and the loss of each micro-batch."""
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    model, optimizer, loader = runtime.prepare(
        model, torch.optim.SGD(model.parameters(), 0.1), DataLoader(data(), batch_size=4, shuffle=True)
    )
    for (x,) in runtime.steps(loader, total=total, **options):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        yield optimizer, loss


def train(runtime: Runtime, each: Each, total: int = 20) -> int:
    """Train, and do something after every micro-batch; returns the steps taken."""
    for optimizer, loss in loop(runtime, total):
        factor = each(runtime, runtime.step)
        if factor == LEFT_OUT:
            continue
        runtime.backward(loss if factor is None else loss * factor)
        optimizer.step()
        optimizer.zero_grad()
    return runtime.step


def stopped_by(ranks: tuple[int, ...]) -> Each:
    """Ask to end the loop in the seventh step, on these ranks."""

    def each(runtime: Runtime, step: int) -> None:
        if step == 7 and runtime.process_index in ranks:
            runtime.stop("patience has run out")

    return each


def nan_in(step: int, micro_batch: int) -> Each:
    """Rank 1's loss is not a number in one micro-batch."""
    counts: list[int] = []

    def each(runtime: Runtime, now: int) -> float | None:
        counts.append(now)
        is_there = now == step and counts.count(now) == micro_batch + 1
        return math.nan if is_there and runtime.process_index == 1 else None

    return each


def left_out_once() -> Each:
    """Rank 1 leaves out a micro-batch that rank 0 trains on, in the third step."""
    done: list[int] = []

    def each(runtime: Runtime, step: int) -> str | None:
        if step != 3 or done or runtime.process_index != 1:
            return None
        done.append(step)
        return LEFT_OUT

    return each


QUESTIONS: dict[str, tuple[Each, dict[str, Any]]] = {
    "all ranks stop": (stopped_by((0, 1)), {}),
    "one rank stops": (stopped_by((1,)), {}),
    "nan at a save": (nan_in(6, 0), {"checkpoint": {"every_steps": 3}}),
    "left out on one rank": (
        left_out_once(),
        {"strategy": {"accumulation_steps": 2}, "checkpoint": {"every_steps": 2}},
    ),
    "nan in an inner micro-batch": (nan_in(5, 0), {"strategy": {"accumulation_steps": 2}}),
}


def main(directory: Path) -> None:
    """Ask every question in a run directory of its own."""
    answers: dict[str, Any] = {}
    for number, (question, (each, sections)) in enumerate(QUESTIONS.items()):
        run = directory / str(number)
        config = {"run_dir": str(run), "runtime": {"device": "cpu", "trackers": []}, **sections}
        try:
            with Runtime(config) as runtime:
                answer: Any = train(runtime, each, 100_000 if question == "one rank stops" else 20)
        except HpcError as error:
            answer = [error.exit_code, str(error)]
        newest = CheckpointStore(run / "checkpoints").list()
        answers[question] = [answer, newest[0].step if newest else None]
    if runtime.is_main_process:
        (directory / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

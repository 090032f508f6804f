"""How much longer is a step under hpc.Runtime than in the loop one would write by hand?

Both loops take turns in one process, block by block, on the same batches in the same order, and must end with the
same weights, bit for bit. The hand-written one logs nothing and saves nothing. The Runtime's logs its loss at every
step, shows it as often as it does by default, and agrees on stopping; its checkpoints are put off beyond the end.
DDP has the same options in both. CPU time is told beside wall time because neighbours on the machine move it less.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime
from hpc.runtime.data import EndlessBatches
from tests.benchmarks.figures import ratio, spread, table
from tests.conftest import clean_environment

FEATURES, CLASSES, SAMPLES = 16, 4, 5000
MILLISECONDS_FILE = "milliseconds.json"


@dataclass(frozen=True)
class Case:
    """A step to measure.

    Args:
        width: Of the MLP's hidden layers.
        batch_size: Per rank.
        block_steps: Steps in a row of either loop.
        blocks: Of each loop, the first of which only warms up.
    """

    width: int
    batch_size: int
    block_steps: int
    blocks: int


CASES = {"small": Case(64, 4, 100, 121), "large": Case(768, 256, 2, 401)}

Blocks = list[float]
"""Milliseconds per step, block by block."""


@dataclass(frozen=True)
class Times:
    """One loop's blocks.

    Args:
        wall: As a clock on the wall sees them.
        cpu: What this process computed meanwhile, on all its threads.
    """

    wall: Blocks
    cpu: Blocks


def main() -> str:
    """Measure every case alone and with two ranks; returns the table."""
    rows = [row for ranks in (1, 2) for name in CASES for row in _rows(name, ranks)]
    return table("Steps: blocks in turns, one thread per rank, median (and its 95 % interval) of the blocks", rows)


def measure(case: Case, directory: Path) -> None:
    """Let both loops take turns on this rank; rank 0 leaves the times in `directory`.

    Raises:
        RuntimeError: The loops trained different weights, so that they did not do the same work.
    """
    options = {"run_dir": str(directory / "run"), "runtime": {"device": "cpu"}, "checkpoint": {"every_steps": 10**9}}
    with Runtime(options) as runtime:
        torch.set_num_threads(1)  # the second thread of a step would wait whenever a neighbour holds its core
        models = _model(case), _model(case)
        loops = _by_hand(case, runtime, models[0]), _with_runtime(case, runtime, models[1])
        turns = [_turn(loops, case.block_steps, number) for number in range(case.blocks)]
        if not all(torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True)):
            raise RuntimeError("Both loops must end with the same weights, but did not.")
        if runtime.is_main_process:
            (directory / MILLISECONDS_FILE).write_text(json.dumps(turns[1:]))


def _rows(name: str, ranks: int) -> list[tuple[str, str]]:
    by_hand, with_runtime = _run(name, ranks)
    label = f"{name} step, {ranks} rank{'s' * (ranks > 1)}"
    return [
        (f"{label}: by hand, ms", str(spread(by_hand.wall))),
        (f"{label}: Runtime, ms", str(spread(with_runtime.wall))),
        (f"{label}: Runtime / by hand", str(ratio(with_runtime.wall, by_hand.wall))),
        (f"{label}: Runtime / by hand, CPU time", str(ratio(with_runtime.cpu, by_hand.cpu))),
    ]


def _run(name: str, ranks: int) -> tuple[Times, Times]:
    """What rank 0 measured: by hand, and with the Runtime."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, *launcher, "-m", "tests.benchmarks.step_overhead", name, directory]
        subprocess.run(command, env=clean_environment(), check=True, stdout=subprocess.DEVNULL)
        turns = json.loads((Path(directory) / MILLISECONDS_FILE).read_text())
    by_hand, with_runtime = ([turn[loop] for turn in turns] for loop in (0, 1))
    return _times(by_hand), _times(with_runtime)


def _times(blocks: list[list[float]]) -> Times:
    return Times([wall for wall, _ in blocks], [cpu for _, cpu in blocks])


def _turn(loops: tuple[Iterator[None], Iterator[None]], steps: int, number: int) -> list[tuple[float, float]]:
    """One block of each; who begins changes every time."""
    blocks = [(0.0, 0.0), (0.0, 0.0)]
    for which in (0, 1) if number % 2 else (1, 0):
        wall, cpu = time.perf_counter(), time.process_time()
        next(loops[which])
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        blocks[which] = (1000 * seconds[0] / steps, 1000 * seconds[1] / steps)
    return blocks


def _by_hand(case: Case, runtime: Runtime, model: nn.Module) -> Iterator[None]:
    several = runtime.num_processes > 1
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True) if several else model
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=0.001)
    scheduler = StepLR(optimizer, 1000, 0.5)
    prepared = runtime.prepare(_loader(case))
    batches = list(islice(EndlessBatches(prepared.order, prepared.share, 0), case.block_steps * case.blocks))
    loader = DataLoader(prepared.loader.dataset, batch_sampler=batches)
    for number, (points, classes) in enumerate(loader, start=1):
        loss = nn.functional.cross_entropy(parallel(points), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parallel.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if number % case.block_steps == 0:
            yield


def _with_runtime(case: Case, runtime: Runtime, model: nn.Module) -> Iterator[None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    scheduler = StepLR(optimizer, 1000, 0.5)
    parallel, optimizer, scheduler, loader = runtime.prepare(model, optimizer, scheduler, _loader(case))
    total = case.block_steps * case.blocks + 1  # one more than is taken: the last would be saved
    for number, (points, classes) in enumerate(runtime.steps(loader, total=total), start=1):
        with runtime.accumulate():
            loss = nn.functional.cross_entropy(parallel(points), classes)
            runtime.backward(loss)
            runtime.clip_grad_norm_(1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        runtime.log(loss=loss)
        if number % case.block_steps == 0:
            yield


def _model(case: Case) -> nn.Module:
    torch.manual_seed(0)
    hidden = nn.Linear(case.width, case.width)
    return nn.Sequential(nn.Linear(FEATURES, case.width), nn.ReLU(), hidden, nn.ReLU(), nn.Linear(case.width, CLASSES))


def _loader(case: Case) -> DataLoader[tuple[torch.Tensor, ...]]:
    points = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))
    dataset = TensorDataset(points, points[:, :CLASSES].argmax(dim=1))
    return DataLoader(dataset, batch_size=case.batch_size, shuffle=True)


if __name__ == "__main__":
    measure(CASES[sys.argv[1]], Path(sys.argv[2]))

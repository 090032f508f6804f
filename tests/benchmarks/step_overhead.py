"""How much longer is a step under hpc.Runtime, and under its peers, than in the loop one would write by hand?

All loops take turns in one process, block by block, on one thread per rank. Ours gets the hand-written one's batches in
the same order and must end with the same weights, bit for bit. DDP has the same options in both. Where a loop's memory
comes to lie makes it a percent faster or slower for as long as its process lives, so several processes are asked. The
median step is what neighbours on the machine move least; the mean of all steps has in it what happens now and then,
and blocks last a second so that this does not happen more often than it would without the other loops.

    python -m tests.benchmarks.step_overhead [DIRECTORY]

The peers are installed into a virtual environment in DIRECTORY, or in one that is removed at the end.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hpc import Runtime
from tests.benchmarks.figures import spread, table
from tests.benchmarks.loops import LOOPS, Case, make_model, make_optimizer
from tests.benchmarks.peer_environment import install_peers, run_with_peers

RESULT_FILE = "result.json"
CASES = {"small": Case(64, 4, 1000, 3), "20 ms": Case(960, 256, 60, 3)}
PROCESSES = 15
TITLES = {median: "median step", fmean: "mean step"}
MEMORY = Case(4096, 8, 4, 2)
COUNTED = Case(64, 4, 500, 3)

Times = dict[str, list[float]]
"""Loop -> milliseconds of each of its steps."""


def main(directory: str = "") -> str:
    """Measure every case alone and with two ranks; returns the table."""
    with tempfile.TemporaryDirectory(prefix="hpc") as temporary:
        python = install_peers(Path(directory or temporary) / "peers")
        rows = [row for ranks in (1, 2) for name in CASES for row in _rows(python, name, ranks)]
        rows += [*_memory_rows(python), *_collective_rows(python)]
    return table(f"Steps: one thread per rank, {PROCESSES} processes' medians: their median (and its interval)", rows)


def _rows(python: Path, name: str, ranks: int) -> Iterator[tuple[str, str]]:
    processes: list[Times] = [_run(python, ranks, "time", name) for _ in range(PROCESSES)]
    label = f"{name} step, {ranks} rank{'s' * (ranks > 1)}"
    yield f"{label}: by hand, median step, ms", str(spread([median(times["by hand"]) for times in processes]))
    for loop in list(LOOPS)[1:]:
        for middle in (median, fmean):
            ratios = [middle(times[loop]) / middle(times["by hand"]) for times in processes]
            yield f"{label}: {loop} / by hand, {TITLES[middle]}", str(spread(ratios))


def _memory_rows(python: Path) -> Iterator[tuple[str, str]]:
    peaks = {loop: _run(python, 1, "memory", loop) for loop in LOOPS}
    yield "peak memory of prepare and 4 steps: by hand, MB", f"{peaks['by hand']:8.1f}"
    for loop in list(LOOPS)[1:]:
        yield f"peak memory: {loop} / by hand", f"{peaks[loop] / peaks['by hand']:8.4f}"


def _collective_rows(python: Path) -> Iterator[tuple[str, str]]:
    for loop in LOOPS:
        yield f"collectives per small step, 2 ranks: {loop}", f"{_run(python, 2, 'collectives', loop):8.4f}"


def _run(python: Path, ranks: int, *question: str) -> Any:
    """Rank 0's answer, from processes of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as directory:
        run_with_peers(python, *launcher, "-m", "tests.benchmarks.step_overhead", directory, *question)
        return json.loads((Path(directory) / RESULT_FILE).read_text())


def answer(directory: Path, question: str, name: str) -> None:
    """On one rank: find out, and leave it in `directory` if this is rank 0."""
    options = {"run_dir": str(directory / "run"), "runtime": {"device": "cpu"}, "checkpoint": {"every_steps": 10**9}}
    with Runtime(options) as runtime:
        torch.set_num_threads(1)  # the second thread of a step would wait whenever a neighbour holds its core
        found = QUESTIONS[question](name, runtime)
        if runtime.is_main_process:
            (directory / RESULT_FILE).write_text(json.dumps(found))


def measure(name: str, runtime: Runtime) -> Times:
    """Let all loops take turns; the first block of each only warms up.

    Raises:
        RuntimeError: The hand-written loop and ours trained different weights, so they did not do the same work.
    """
    case = CASES[name]
    loops = {loop: make(case, runtime) for loop, make in LOOPS.items()}
    models: dict[str, nn.Module] = {}
    times: Times = {loop: [] for loop in loops}
    order = list(loops)
    for _ in range(case.blocks):
        order.append(order.pop(0))  # who begins changes every time
        for loop, _ in product(order, range(case.block_steps)):
            began = time.perf_counter()
            models[loop] = next(loops[loop])
            times[loop].append(1000 * (time.perf_counter() - began))
    ours, theirs = (models[loop].parameters() for loop in ("Runtime", "by hand"))
    if not all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True)):
        raise RuntimeError("Both loops must end with the same weights, but did not.")
    return {loop: steps[case.block_steps :] for loop, steps in times.items()}


def peak_mb(name: str, runtime: Runtime) -> float:
    """What one loop's preparation and first steps add to this process, which has imported what every loop needs."""
    make_optimizer(make_model(Case(8, 8, 1, 1)))  # imports what AdamW imports
    import_module("torch.utils.tensorboard")  # and what the Runtime's default tracker does: code is no state
    before = _resident_mb()
    _take(LOOPS[name](MEMORY, runtime), MEMORY.block_steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def collectives_per_step(name: str, runtime: Runtime) -> float:
    """How often ranks talk to each other in a step, as torch's profiler counts it."""
    loop = LOOPS[name](COUNTED, runtime)
    _take(loop, COUNTED.block_steps)  # DDP says hello, and ranks find out how long a step is
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _take(loop, COUNTED.block_steps)
    calls = sum(average.count for average in profiler.key_averages() if average.key.startswith("c10d::"))
    return float(calls / COUNTED.block_steps)


QUESTIONS: dict[str, Callable[[str, Runtime], Any]] = {
    "time": measure,
    "memory": peak_mb,
    "collectives": collectives_per_step,
}


def _take(loop: Iterator[nn.Module], steps: int) -> None:
    for _ in range(steps):
        next(loop)


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _from_command_line(words: Sequence[str]) -> None:
    if len(words) > 1:
        answer(Path(words[0]), words[1], words[2])
    else:
        print(main(*words))


if __name__ == "__main__":
    _from_command_line(sys.argv[1:])

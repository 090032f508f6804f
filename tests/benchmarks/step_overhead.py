"""How much longer is a step under hpc.Runtime, and under its peers, than in the loop one would write by hand?

All loops take turns in one process, block by block, on one thread per rank. Ours gets the hand-written one's batches in
the same order and must end with the same weights, bit for bit. DDP has the same options in both. Where a loop's memory
comes to lie makes it a percent faster or slower for as long as its process lives, so several processes are asked. CPU
time is told beside wall time because neighbours on the machine move it less.

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
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hpc import Runtime
from tests.benchmarks.figures import spread, table
from tests.benchmarks.loops import LOOPS, Case, make_model, make_optimizer
from tests.benchmarks.peer_environment import install_peers, run_with_peers

RESULT_FILE = "result.json"
CASES = {"small": Case(64, 4, 100, 31), "20 ms": Case(960, 256, 10, 13)}
PROCESSES = 9
MEMORY = Case(4096, 8, 4, 2)
COUNTED = Case(64, 4, 500, 3)

WALL, CPU = 0, 1
Turn = dict[str, tuple[float, float]]
"""Of one block: loop -> milliseconds per step, on the wall and of this process's CPU time."""


def main(directory: str = "") -> str:
    """Measure every case alone and with two ranks; returns the table."""
    with tempfile.TemporaryDirectory(prefix="hpc") as temporary:
        python = install_peers(Path(directory or temporary) / "peers")
        rows = [row for ranks in (1, 2) for name in CASES for row in _rows(python, name, ranks)]
        rows += [*_memory_rows(python), *_collective_rows(python)]
    return table(f"Steps: one thread per rank, {PROCESSES} processes' medians: their median (and its interval)", rows)


def _rows(python: Path, name: str, ranks: int) -> Iterator[tuple[str, str]]:
    processes: list[list[Turn]] = [_run(python, ranks, "time", name) for _ in range(PROCESSES)]
    label = f"{name} step, {ranks} rank{'s' * (ranks > 1)}"
    hand = [median(turn["by hand"][WALL] for turn in turns) for turns in processes]
    yield f"{label}: by hand, ms", str(spread(hand))
    for loop in list(LOOPS)[1:]:
        for clock, title in ((WALL, "wall"), (CPU, "CPU")):
            ratios = [median(turn[loop][clock] / turn["by hand"][clock] for turn in turns) for turns in processes]
            yield f"{label}: {loop} / by hand, {title}", str(spread(ratios))


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


def measure(name: str, runtime: Runtime) -> list[Turn]:
    """Let all loops take turns; the first block of each only warms up.

    Raises:
        RuntimeError: The hand-written loop and ours trained different weights, so they did not do the same work.
    """
    case = CASES[name]
    loops = {loop: make(case, runtime) for loop, make in LOOPS.items()}
    models: dict[str, nn.Module] = {}
    order = list(loops)
    turns = []
    for _ in range(case.blocks):
        order.append(order.pop(0))  # who begins changes every time
        turns.append(_turn({loop: loops[loop] for loop in order}, models, case.block_steps))
    ours, theirs = (models[loop].parameters() for loop in ("Runtime", "by hand"))
    if not all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True)):
        raise RuntimeError("Both loops must end with the same weights, but did not.")
    return turns[1:]


def _turn(loops: dict[str, Iterator[nn.Module]], models: dict[str, nn.Module], steps: int) -> Turn:
    turn = {}
    for loop, blocks in loops.items():
        wall, cpu = time.perf_counter(), time.process_time()
        models[loop] = next(blocks)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        turn[loop] = (1000 * seconds[0] / steps, 1000 * seconds[1] / steps)
    return turn


def peak_mb(name: str, runtime: Runtime) -> float:
    """What one loop's preparation and first steps add to this process, which has imported what every loop needs."""
    make_optimizer(make_model(Case(8, 8, 1, 1)))  # imports what AdamW imports
    import_module("torch.utils.tensorboard")  # and what the Runtime's default tracker does: code is no state
    before = _resident_mb()
    next(LOOPS[name](MEMORY, runtime))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def collectives_per_step(name: str, runtime: Runtime) -> float:
    """How often ranks talk to each other in a step, as torch's profiler counts it."""
    loop = LOOPS[name](COUNTED, runtime)
    next(loop)  # DDP says hello, and ranks find out how long a step is
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        next(loop)
    calls = sum(average.count for average in profiler.key_averages() if average.key.startswith("c10d::"))
    return float(calls / COUNTED.block_steps)


QUESTIONS: dict[str, Callable[[str, Runtime], Any]] = {
    "time": measure,
    "memory": peak_mb,
    "collectives": collectives_per_step,
}


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

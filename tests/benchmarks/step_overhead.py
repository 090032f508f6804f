"""How much longer is a step under hpc.Runtime, and under its peers, than in the loop one would write by hand?

All loops take turns in one process, step by step and in an order that is drawn anew each time, on one thread per rank.
Ours gets the hand-written one's batches in the same order and must end with the same weights, bit for bit. DDP has the
same options in both. Each step is compared with the hand-written one of the same turn, which had the same neighbours
on the machine; a second hand-written loop shows what that leaves. A process's figure is the median of its turns, so
what happens once a second (Runtime shows how far it is: 0.7 ms) is in none.

    python -m tests.benchmarks.step_overhead [DIRECTORY]

The peers are installed into a virtual environment in DIRECTORY, or in one that is removed at the end.
"""

from __future__ import annotations

import gc
import json
import random
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
from tests.benchmarks.figures import ratio, spread, table
from tests.benchmarks.loops import LOOPS, Case, make_model, make_optimizer
from tests.benchmarks.peer_environment import install_peers, run_with_peers

RESULT_FILE = "result.json"
CASES = {"small": Case(64, 4, 3000), "20 ms": Case(960, 320, 240)}
WARM_UP_STEPS = 20
PROCESSES = 9
MEMORY = Case(4096, 8, 4)
COUNTED = Case(64, 4, 1000)
KEEPING_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""For glibc (mallopt(3)): what a step frees is there for the next. By default it may go back to the kernel, by where in
the process a loop's tensors happen to lie, and the same loop then costs 2,900 page faults a step or none."""

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
    processes: list[Times] = [_run(python, ranks, "time", name, **KEEPING_MEMORY) for _ in range(PROCESSES)]
    label = f"{name} step, {ranks} rank{'s' * (ranks > 1)}"
    yield f"{label}: by hand, ms", str(spread([median(times["by hand"]) for times in processes]))
    for loop in list(LOOPS)[1:]:
        ratios = [ratio(times[loop], times["by hand"]).median for times in processes]
        yield f"{label}: {loop} / by hand", str(spread(ratios))


def _memory_rows(python: Path) -> Iterator[tuple[str, str]]:
    peaks = {loop: _run(python, 1, "memory", loop) for loop in LOOPS}
    yield "peak memory of prepare and 4 steps: by hand, MB", f"{peaks['by hand']:8.1f}"
    for loop in list(LOOPS)[1:]:
        yield f"peak memory: {loop} / by hand", f"{peaks[loop] / peaks['by hand']:8.4f}"


def _collective_rows(python: Path) -> Iterator[tuple[str, str]]:
    for loop in LOOPS:
        yield f"collectives per small step, 2 ranks: {loop}", f"{_run(python, 2, 'collectives', loop):8.4f}"


def _run(python: Path, ranks: int, *question: str, **environ: str) -> Any:
    """Rank 0's answer, from processes of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as directory:
        run_with_peers(python, *launcher, "-m", "tests.benchmarks.step_overhead", directory, *question, **environ)
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
    """Let all loops take turns, after a few steps of each that only warm up.

    Raises:
        RuntimeError: The hand-written loop and ours trained different weights, so they did not do the same work.
    """
    case, draw = CASES[name], random.Random(0)  # every rank draws the same
    loops = {loop: make(case, runtime) for loop, make in LOOPS.items()}
    for each in loops.values():
        _take(each, WARM_UP_STEPS)
    gc.collect()
    gc.freeze()  # what all of them imported takes the collector 0.15 s, at the cost of whoever's turn it is
    models: dict[str, nn.Module] = {}
    times: Times = {loop: [] for loop in loops}
    for _ in range(case.steps - WARM_UP_STEPS):
        for loop in draw.sample(list(loops), len(loops)):
            began = time.perf_counter()
            models[loop] = next(loops[loop])
            times[loop].append(1000 * (time.perf_counter() - began))
    ours, theirs = (models[loop].parameters() for loop in ("Runtime", "by hand"))
    if not all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True)):
        raise RuntimeError("Both loops must end with the same weights, but did not.")
    return times


def peak_mb(name: str, runtime: Runtime) -> float:
    """What one loop's preparation and first steps add to this process, which has imported what every loop needs."""
    make_optimizer(make_model(Case(8, 8, 1)))  # imports what AdamW imports
    import_module("torch.utils.tensorboard")  # and what the Runtime's default tracker does: code is no state
    before = _resident_mb()
    _take(LOOPS[name](MEMORY, runtime), MEMORY.steps)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def collectives_per_step(name: str, runtime: Runtime) -> float:
    """How often ranks talk to each other in a step, as torch's profiler counts it."""
    loop, steps = LOOPS[name](COUNTED, runtime), COUNTED.steps // 2
    _take(loop, steps)  # DDP says hello, and ranks find out how long a step is
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        _take(loop, steps)
    calls = sum(average.count for average in profiler.key_averages() if average.key.startswith("c10d::"))
    return float(calls / steps)


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

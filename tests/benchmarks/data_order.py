"""How fast is an order of samples made, entered in the middle, and read, beside torch's DistributedSampler?

torch's sampler makes the whole list of indices before it gives the first, so it is asked for as many samples as a
machine with 2 GB to spare can hold; ours for more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import islice
from subprocess import run

import numpy as np

from tests.benchmarks.figures import spread, table
from tests.conftest import clean_environment

OURS, TORCHS = 10**9, 3 * 10**7
READ = 5_000_000


def main() -> str:
    """Measure each in processes of its own; returns the table."""
    figures = {name: [_measured(name) for _ in range(repeats)] for name, repeats in (("ours", 5), ("torch", 2))}
    names = "first batch from the middle, ms", "memory for it, MB", "first 5 million samples, million a second"
    return table(
        "Order of samples",
        [
            (f"{label}: {name}", str(spread([each[place] for each in figures[key]])))
            for key, label in (("ours", f"ours, {OURS:.0e} samples"), ("torch", f"DistributedSampler, {TORCHS:.0e}"))
            for place, name in enumerate(names)
        ],
    )


def ours() -> tuple[Callable[[], object], Callable[[int], object]]:
    """Seek, and read."""
    from hpc.data.batches import EndlessBatches
    from hpc.data.order import Order
    from hpc.data.share import Share

    def batches() -> EndlessBatches:
        return EndlessBatches(Order(OURS, 0, shuffle=True), Share(0, 1, 256), OURS // 2)

    def read(count: int) -> int:
        return sum(len(batch) for batch in islice(batches(), count // 256))

    return lambda: next(iter(batches())), read


def torchs() -> tuple[Callable[[], object], Callable[[int], object]]:
    """The same of torch's; it cannot be entered in the middle other than by passing over what comes before."""
    from torch.utils.data import DistributedSampler

    def sampler() -> DistributedSampler[int]:
        return DistributedSampler(range(TORCHS), num_replicas=1, rank=0)  # type: ignore[arg-type]

    return lambda: next(islice(sampler(), TORCHS // 2, None)), lambda count: sum(1 for _ in islice(sampler(), count))


def measure(name: str) -> None:
    """Print one process's figures: milliseconds, megabytes, million indices a second."""
    seek, read = ours() if name == "ours" else torchs()
    if name == "ours":
        from hpc.data.order import Order

        Order(10, 0, shuffle=True).indices(np.arange(10, dtype=np.uint64))  # loads NumPy's functions
    before, began = _peak_bytes(), time.perf_counter()
    seek()
    milliseconds = 1000 * (time.perf_counter() - began)
    megabytes = (_peak_bytes() - before) / 1e6
    began = time.perf_counter()
    read(READ)
    print(milliseconds, megabytes, READ / 1e6 / (time.perf_counter() - began))


def _measured(name: str) -> tuple[float, ...]:
    command = [sys.executable, "-m", "tests.benchmarks.data_order", name]
    done = run(command, env=clean_environment(), check=True, capture_output=True, text=True)
    return tuple(map(float, done.stdout.split()))


def _peak_bytes() -> int:
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    measure(sys.argv[1])

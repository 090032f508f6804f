"""`python -m tests.benchmarks`: prints every figure, and what it was taken on."""

from __future__ import annotations

from tests.benchmarks import checkpoints, data_order, restart, step_overhead, submission
from tests.benchmarks.figures import conditions

if __name__ == "__main__":
    print(conditions(), flush=True)
    for benchmark in (submission, data_order, step_overhead, checkpoints, restart):
        print("", benchmark.main(), sep="\n", flush=True)

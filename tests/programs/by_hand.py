"""A script that calls its training function by itself, as people do under srun, torchrun, or plain python.

python by_hand.py RUN_DIR STEPS [fail RANK | slow SECONDS]
"""

from __future__ import annotations

import sys
import time

from torch.utils.data import DataLoader

from hpc import Runtime
from tests.programs.jobs import Points


def main(directory: str, steps: str, mode: str = "", value: str = "0") -> None:
    """Train nothing; raise in the third step where asked to, or be slow and stop long before the allocation ends."""
    config = {
        "run_dir": directory,
        "runtime": {"device": "cpu", "trackers": [], "max_lives_without_progress": 2},
        "checkpoint": {"every_steps": 10},
        "cluster": {"grace_seconds": 150 if mode == "slow" else 1},
    }
    with Runtime(config) as runtime:
        loader = runtime.prepare(DataLoader(Points(), 4))
        for _ in runtime.steps(loader, total=int(steps)):
            time.sleep(float(value) if mode == "slow" else 0)
            if mode == "fail" and runtime.step == 3 and runtime.process_index == int(value):
                raise ValueError("asked to fail")


if __name__ == "__main__":
    main(*sys.argv[1:])

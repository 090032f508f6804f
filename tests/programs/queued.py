"""What a queue starts in its tests: a training function without torch, which does as files tell it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hpc.files import replace_text
from hpc.stop.requests import stop_requests


def train(cfg: Any) -> float:
    """Say who runs where, then wait for an order or for a stop.

    `cfg.trace` is a directory: this attempt writes `POINT.ATTEMPT.json` there and waits for `POINT.ATTEMPT.go`, which
    holds an exit code. `cfg.deaf` does not listen to signals, and `cfg.leaves_child` starts a process that nobody ends.
    """
    trace, point = Path(cfg.trace), Path(cfg.run_dir).name
    attempt = next(number for number in itertools.count(1) if not (trace / f"{point}.{number}.json").exists())
    told = {"pid": os.getpid(), "gpus": os.environ["CUDA_VISIBLE_DEVICES"], "threads": os.environ["OMP_NUM_THREADS"]}
    if cfg.get("leaves_child"):
        told["child"] = subprocess.Popen(["sleep", "600"]).pid
    replace_text(trace / f"{point}.{attempt}.json", json.dumps(told))
    print(f"point {point} is here", flush=True)
    while not (trace / f"{point}.{attempt}.go").exists():
        if stop_requests().current() and not cfg.get("deaf"):
            sys.exit(75)
        time.sleep(0.02)
    code = int((trace / f"{point}.{attempt}.go").read_text())
    if code:
        sys.exit(code)
    return float(attempt)

"""Training functions for tests: small, exact, and able to misbehave on request."""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from hpc import Runtime


class Points(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random points of R^16 in four classes; sample i is a function of i."""

    def __len__(self) -> int:
        return 500

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        point = torch.randn(16, generator=torch.Generator().manual_seed(index))
        return point, point[:4].argmax()


def train(cfg: Any) -> float:
    """Train a classifier with dropout; every rank must end with the same weights.

    `cfg.job` may name a `fail_rank` and `fail_step` to raise at, a `hold_step` in which that rank holds Python for ever
    in C, an `eat_step` in which it takes 8 GiB of memory, a `nan_step` to diverge at, and `step_seconds` to spend in
    each step, until there is a file named `hurry`. A `slow_rank` spends `slow_seconds` more. A
    `left_behind` is the number of seconds for which a daemon sleeps.
    """
    if "left_behind" in cfg.job:
        subprocess.Popen(["sleep", str(cfg.job.left_behind)], start_new_session=True)
    with Runtime(cfg) as runtime:
        model = nn.Sequential(
            nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loader = DataLoader(Points(), batch_size=4, shuffle=True, num_workers=cfg.job.get("workers", 0))
        model, optimizer, scheduler, loader = runtime.prepare(model, optimizer, StepLR(optimizer, 20, 0.5), loader)
        for points, classes in runtime.steps(loader, total=cfg.steps):
            with runtime.accumulate():
                loss = nn.functional.cross_entropy(model(points), classes)
                if runtime.step == cfg.job.get("nan_step"):
                    loss = loss * math.nan
                runtime.backward(loss)
                runtime.clip_grad_norm_(1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            runtime.log(loss=loss, lr=optimizer.param_groups[0]["lr"])
            misbehave(cfg.job, runtime)
        weights = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
        everybodys = runtime.gather(weights).reshape(runtime.num_processes, -1)
        if not all(torch.equal(everybodys[0], each) for each in everybodys):
            raise RuntimeError("the ranks ended with different weights")
    return float(weights.double().sum())


def misbehave(job: Any, runtime: Runtime) -> None:
    """Spend time, leave a trace of who runs where, and raise if this is the rank and the step."""
    step = runtime.step
    if job.get("trace"):
        trace = Path(job.trace) / f"rank_{runtime.process_index}.json"
        trace.parent.mkdir(parents=True, exist_ok=True)
        whole = trace.with_suffix(".tmp")  # whoever reads the trace meanwhile finds the old one or the new
        life = f"{os.environ.get('SLURM_JOB_ID')}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
        whole.write_text(json.dumps({"step": step, "pid": os.getpid(), "life": life}))
        whole.replace(trace)
    time.sleep(0.0 if job.get("hurry") and Path(job.hurry).exists() else job.get("step_seconds", 0.0))
    if runtime.process_index == job.get("slow_rank"):
        time.sleep(job.slow_seconds)
    if runtime.process_index == job.get("fail_rank") and step == job.get("hold_step"):
        ctypes.PyDLL(None).sleep(100_000)
    if runtime.process_index == job.get("fail_rank") and step == job.get("eat_step"):
        eaten = [b"x" * 2**28 for _ in range(32)]
        raise ValueError(f"{len(eaten)} times 256 MiB were there")
    if runtime.process_index == job.get("fail_rank") and step == job.get("fail_step"):
        raise ValueError(f"asked to fail at step {step}")


def fail_at_once(cfg: Any) -> float:
    """Raise before there is a Runtime."""
    raise ValueError(f"no training with seed {cfg.seed}")


def train_exactly(cfg: Any) -> float:
    """Train in double precision without dropout, so that only the order of additions may differ between worlds."""
    with Runtime(cfg) as runtime:
        model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = DataLoader(Points(), batch_size=3, shuffle=True)
        model, optimizer, loader = runtime.prepare(model, optimizer, loader)
        for points, classes in runtime.steps(loader, total=cfg.steps):
            with runtime.accumulate():
                loss = nn.functional.cross_entropy(model(points.double()), classes)
                runtime.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    return 0.0

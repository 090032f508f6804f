"""What ranks find in an allocation: a training function of its own, which `hpc doctor --canary` submits.

It trains a tiny model until it is told to stop. The life after that one ends at once, and so proves the requeue.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import DataLoader, TensorDataset

from hpc.doctor.canary import FINDINGS_FILE, READY_SECONDS, STEP_SECONDS, RanksTell, tell
from hpc.environ import process_environ
from hpc.files import create, make_directory, replace_text
from hpc.runtime.runtime import Runtime

REPEATS = 5


def prove(cfg: Any) -> float:
    """Say what the ranks see, then train until a signal comes; after the requeue, return.

    Args:
        cfg: The whole config; `run_dir` is where the answers go.
    """
    with Runtime(cfg) as runtime:
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loader = DataLoader(TensorDataset(torch.ones(64 * runtime.num_processes, 4)), batch_size=4)
        model, optimizer, _, loader = runtime.prepare(model, optimizer, ConstantLR(optimizer), loader)
        is_first = True
        for (batch,) in runtime.steps(loader, total=int(READY_SECONDS / STEP_SECONDS)):
            if is_first and runtime.step > 1:
                break
            if is_first:
                _tell(runtime, Path(cfg.run_dir) / "doctor", batch.device)
                is_first = False
            runtime.backward(model(batch).square().mean())
            optimizer.step()
            optimizer.zero_grad()
            time.sleep(STEP_SECONDS)
    return float(runtime.step)


def _tell(runtime: Runtime, directory: Path, device: torch.device) -> None:
    """Every rank writes what it sees; rank 0 reads all of it, which proves that files are seen between nodes."""
    make_directory(directory)
    runtime.wait_for_everyone()
    told = {**_seen(directory, device), "all_reduce_gb_per_second": _all_reduce(runtime.num_processes, device)}
    file = directory / f"rank_{runtime.process_index}.json"
    replace_text(file, json.dumps(told))
    skew = file.stat().st_mtime - time.time()
    replace_text(file, json.dumps({**told, "skew_seconds": round(skew, 3)}))
    runtime.wait_for_everyone()
    if runtime.is_main_process:
        ranks = RanksTell(directory, runtime.num_processes).wait()
        replace_text(directory / FINDINGS_FILE, json.dumps([asdict(finding) for finding in tell(ranks)]))


def _seen(directory: Path, device: torch.device) -> dict[str, Any]:
    given = process_environ()
    return {
        "host": os.uname().nodename,
        "cpus": len(os.sched_getaffinity(0)),
        "devices": torch.cuda.device_count(),
        "given": given.get("CUDA_VISIBLE_DEVICES", given.get("ROCR_VISIBLE_DEVICES", "")),
        "device": str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else "",
        "torch": torch.__version__,
        "won": _won(directory / "exclusive"),
        "shared_memory_gb": round(_free("/dev/shm") / 1e9, 2),
    }


def _won(path: Path) -> bool:
    """Whether this rank was the one that made the file; all try at once."""
    try:
        create(path).close()
    except FileExistsError:
        return False
    return True


def _free(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _all_reduce(ranks: int, device: torch.device) -> float | None:
    """Bus bandwidth in GB/s, as nccl-tests counts it: 2 (n - 1) / n of the bytes, per second. None for one rank."""
    if ranks == 1:
        return None
    values = torch.ones((1 << 26) if device.type == "cuda" else (1 << 20), device=device)
    seconds = min(_timed(values) for _ in range(REPEATS))
    return round(2 * (ranks - 1) / ranks * values.nbytes / seconds / 1e9, 3)


def _timed(values: torch.Tensor) -> float:
    began = time.perf_counter()
    distributed.all_reduce(values)
    if values.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began

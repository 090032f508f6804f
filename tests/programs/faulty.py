"""A rank that fails on request: where, and of what. The same faults in our loop and in a plain one of torch's.

A fault is named `WHAT@WHERE`, such as `exception@backward` or `sigkill@step`; it happens on one rank, or on `all`.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

STEP, STEPS = 5, 12
"""At which step a fault happens, and when a run without one ends."""
COLLECTIVE_SECONDS = 10.0
"""How long a collective may wait: the time-out of a process group in these runs."""


@dataclass(frozen=True)
class Fault:
    """What is to happen in this process, if anything.

    Args:
        name: `WHAT@WHERE`.
        is_here: Whether this is the rank for it.
        directory: A place for files.
    """

    name: str
    is_here: bool
    directory: Path

    def at(self, where: str, step: int = STEP) -> None:
        """Let it happen, if it belongs here and now."""
        what, _, place = self.name.partition("@")
        if self.is_here and place == where and step == STEP:
            FAULTS[what](self)


def _raise(error: BaseException) -> Callable[[Fault], None]:
    def fault(_: Fault) -> None:
        raise error

    return fault


def _signal(number: int) -> Callable[[Fault], None]:
    def fault(_: Fault) -> None:
        os.kill(os.getpid(), number)
        time.sleep(600)

    return fault


def _segfault(_: Fault) -> None:
    ctypes.string_at(0)


def _full_disk(fault: Fault) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(fault.directory / "cache"))


def _port_taken(_: Fault) -> None:
    import socket

    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        second.bind(first.getsockname())


def _import(_: Fault) -> None:
    import a_package_that_this_node_lacks  # type: ignore[import-not-found]  # noqa: F401


def _host_memory(_: Fault) -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _eat(_: Fault) -> None:
    """More than a cgroup has."""
    eaten = []
    while True:
        eaten.append(bytearray(b"x") * (16 << 20))


def _deadlock(_: Fault) -> None:
    if dist.get_rank() >= 0:
        dist.barrier()  # the others are in an all-reduce of something else
    time.sleep(600)


def _shapes(_: Fault) -> None:
    torch.ones(3, 4) @ torch.ones(5, 6)


def _leave_with_finally(_: Fault) -> None:
    """Fail, and wait for the others in vain while cleaning up."""
    from datetime import timedelta

    try:
        raise ValueError("asked to fail before the cleaning up")
    finally:
        dist.monitored_barrier(timeout=timedelta(seconds=2))


FAULTS: dict[str, Callable[[Fault], None]] = {
    "exception": _raise(ValueError("asked to fail")),
    "lookup": _raise(KeyError("no such column")),
    "assertion": _raise(AssertionError("labels must lie in the vocabulary")),
    "memory": _raise(MemoryError()),
    "cuda": _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 79 GiB.")),
    "host": _host_memory,
    "disk": _full_disk,
    "port": _port_taken,
    "import": _import,
    "shapes": _shapes,
    "cleanup": _leave_with_finally,
    "exit3": lambda _: sys.exit(3),
    "exit0": lambda _: sys.exit(0),
    "hardexit": lambda _: os._exit(7),
    "sigkill": _signal(signal.SIGKILL),
    "sigsegv": _segfault,
    "sigabrt": lambda _: os.abort(),
    "sigbus": _signal(signal.SIGBUS),
    "sigstop": _signal(signal.SIGSTOP),
    "sleep": lambda _: time.sleep(600),
    "deadlock": _deadlock,
    "oom": _eat,
    "nan": lambda _: None,  # what follows does it
}


class Points(Dataset[torch.Tensor]):
    """Points of R^8; a fault may lie in one of them.

    Args:
        fault: Of this process.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        in_worker = torch.utils.data.get_worker_info() is not None
        self.fault.at("worker" if in_worker else "data", STEP if index >= 4 * STEP or in_worker else 0)
        return torch.randn(8, generator=torch.Generator().manual_seed(index))


class Saved:
    """Something that is saved with every checkpoint, and may fail then.

    Args:
        fault: Of this process.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def state_dict(self) -> dict[str, Any]:
        """Let it happen."""
        self.fault.at("save")
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""


class FaultyFunction(torch.autograd.Function):
    """The identity, whose gradient may fail."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, fault: Fault, step: int) -> torch.Tensor:
        """Remember the fault."""
        ctx.fault, ctx.step = fault, step
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Let it happen."""
        ctx.fault.at("backward", ctx.step)
        return gradient, None, None


def ours(fault: Fault, config: dict[str, Any]) -> None:
    """A loop on our Runtime."""
    from hpc import Runtime

    fault.at("start")
    with Runtime(config) as runtime:
        fault.at("build")
        optimizer, model = _parts()
        workers = 1 if fault.name.endswith("@worker") else 0
        model, optimizer, loader = runtime.prepare(model, optimizer, DataLoader(Points(fault), 4, num_workers=workers))
        runtime.register("saved", Saved(fault))
        for batch in runtime.steps(loader, total=STEPS):
            loss = _forward(model, batch, fault, runtime.step)
            runtime.backward(loss)
            fault.at("optimizer", runtime.step)
            optimizer.step()
            optimizer.zero_grad()
            runtime.log(loss=loss)
            fault.at("evaluate", runtime.step)
            _exchange(fault, runtime.step, runtime.gather)
            time.sleep(0.05)


def plain(fault: Fault) -> None:
    """The same loop on torch alone, as torchrun's documentation has it."""
    from datetime import timedelta

    fault.at("start")
    dist.init_process_group("gloo", timeout=timedelta(seconds=COLLECTIVE_SECONDS))
    fault.at("build")
    optimizer, model = _parts()
    model = nn.parallel.DistributedDataParallel(model)
    workers = 1 if fault.name.endswith("@worker") else 0
    for step, batch in enumerate(_cycled(DataLoader(Points(fault), 4, num_workers=workers)), start=1):
        loss = _forward(model, batch, fault, step)
        if not math.isfinite(loss.item()):
            raise FloatingPointError("the loss is not finite")
        loss.backward()  # type: ignore[no-untyped-call]
        fault.at("optimizer", step)
        optimizer.step()
        optimizer.zero_grad()
        fault.at("evaluate", step)
        _exchange(fault, step, _gathered)
        if step == STEP and dist.get_rank() == 0:
            Saved(fault).state_dict()
        time.sleep(0.05)
        if step == STEPS:
            return


def _parts() -> tuple[torch.optim.Optimizer, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    return torch.optim.SGD(model.parameters(), lr=0.01), model


def _forward(model: nn.Module, batch: torch.Tensor, fault: Fault, step: int) -> torch.Tensor:
    fault.at("forward", step)
    fault.at("step", step)
    value = FaultyFunction.apply(model(batch), fault, step)  # type: ignore[no-untyped-call]
    loss: torch.Tensor = value.square().mean()
    return loss * float("nan") if fault.name == "nan@step" and fault.is_here and step == STEP else loss


def _exchange(fault: Fault, step: int, gather: Callable[[torch.Tensor], object]) -> None:
    """A collective of an evaluation, in which one rank may have another shape or not take part."""
    if fault.name == "absent@gather" and fault.is_here and step == STEP:
        time.sleep(600)
    gather(torch.ones(1))


def _gathered(value: torch.Tensor) -> list[torch.Tensor]:
    found = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(found, value)
    return found


def _cycled(loader: DataLoader[torch.Tensor]) -> Iterator[torch.Tensor]:
    while True:
        yield from loader

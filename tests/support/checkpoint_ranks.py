"""Worlds of several ranks that save and load together: `python -m tests.support.checkpoint_ranks DIRECTORY`.

Forked from one process that has imported torch, because an import costs more than everything that is tested here.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore, SealedWords
from hpc.errors import DriftError
from hpc.world import World

Layout = tuple[int, ...]
"""Ranks: () one model on each, (n,) sharded over n, (m, n) m replicas sharded over n."""


def in_world(size: int, program: Callable[[ProcessGroup], None], meeting: Path) -> None:
    """Run a program on every rank of a world of forked processes.

    Raises:
        RuntimeError: A rank failed.
    """
    pids = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os._exit(_rank(rank, size, program, meeting))
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    meeting.unlink(missing_ok=True)
    if any(codes):
        raise RuntimeError(f"ranks ended with {codes}")


def _rank(rank: int, size: int, program: Callable[[ProcessGroup], None], meeting: Path) -> int:
    try:
        torch.set_num_threads(1)  # the threads that the parent has used are not there after a fork, and are waited for
        store = distributed.FileStore(str(meeting), size)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
        world = World(rank, size, rank, size, 0, 1, ("here",), "test", "0")
        words = SealedWords(distributed.new_group(backend="gloo"), b"known to all", "side")
        sealed = SealedStore(store, b"known to all")
        program(ProcessGroup(world, torch.device("cpu"), sealed, words if size > 1 else None))
        distributed.barrier()
    except BaseException:  # the exit status is all that the parent sees
        traceback.print_exc()
        return 1
    return 0


class Net(nn.Module):
    """Rows that two, three and four ranks cannot share evenly, a tied weight, a buffer, a parameter without rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.second = nn.Linear(7, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 7, bias=False)
        self.last.weight = self.first.weight
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.last(self.norm(self.second(self.first(points))) * self.gain))


class Average:
    """Registered: copies of a model's parameters, sharded as these are."""

    def __init__(self, model: nn.Module) -> None:
        self.values = {name: each.detach().clone() for name, each in model.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "count": np.int64(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = state["values"]


def training(layout: Layout, seed: int) -> TrainingState:
    """A model after two steps, with an optimizer that has state, in the given layout."""
    torch.manual_seed(seed)
    model = Net()
    if layout:
        names = ("replicas", "shards")[-len(layout) :]
        fully_shard(model, mesh=init_device_mesh("cpu", layout, mesh_dim_names=names))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01 * (seed + 1))
    for step in range(2):
        torch.manual_seed(100 * seed + step)
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return TrainingState([model], [optimizer], {"user.average": Average(model)})


def whole(state: TrainingState) -> dict[str, torch.Tensor]:
    """Every tensor, gathered. Collective."""
    tensors = state.contents({}).tensors
    return {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor for name, tensor in tensors.items()
    }


def saves(layout: Layout, directory: Path) -> Callable[[ProcessGroup], None]:
    """Commit a trained state, and write down what it was."""

    def program(group: ProcessGroup) -> None:
        state = training(layout, seed=0)
        store = CheckpointStore(directory)
        if group.world.rank == 0:
            store.acquire()
        commit(store, group, snapshot(state, 2, group.world.rank, {"samples": 8}, {}))
        truth = whole(state)
        if group.world.rank == 0:
            torch.save(truth, directory / "truth.pt")

    return program


def loads(layout: Layout, directory: Path) -> Callable[[ProcessGroup], None]:
    """Load it into another one, and compare bit for bit."""

    def program(group: ProcessGroup) -> None:
        state = training(layout, seed=1)
        model = state.models[0]
        resumed = load_latest(CheckpointStore(directory), state, group, print)
        found, truth = whole(state), torch.load(directory / "truth.pt")
        same = found.keys() == truth.keys() and all(torch.equal(found[name], truth[name]) for name in truth)
        tied = model.get_parameter("last.weight") is model.get_parameter("first.weight")
        if resumed is None or resumed.trainer["samples"] != 8 or not same or not tied:
            different = [name for name in truth if not torch.equal(found[name], truth[name])]
            raise ValueError(f"rank {group.world.rank} resumed {resumed} with other {different}")
        if state.optimizers[0].param_groups[0]["lr"] != 0.01:
            raise ValueError(f"lr is {state.optimizers[0].param_groups[0]['lr']}")

    return program


def drifts(directory: Path) -> Callable[[ProcessGroup], None]:
    """Two replicas of two shards each, one of which has become another: nothing is committed."""

    def program(group: ProcessGroup) -> None:
        state, rank = training((2, 2), seed=0), group.world.rank
        weight: Any = state.models[0].get_parameter("second.weight")
        if rank == 3:
            weight.to_local().data[0, 0] += 1
        store = CheckpointStore(directory)
        if rank == 0:
            store.acquire()
        try:
            commit(store, group, snapshot(state, 2, rank, {}, {}))
        except DriftError as error:
            if "second.weight, but at step 2 it is one value on rank 1 and another on rank 3;" in str(error):
                return
        raise ValueError("nothing was noticed")

    return program


SAVED: tuple[tuple[int, Layout, tuple[tuple[int, Layout], ...]], ...] = (
    (1, (), ((2, (2,)),)),
    (2, (2,), ((1, ()), (2, (2,)), (3, (3,)))),
    (4, (2, 2), ((2, ()),)),
)
"""Who saves: ranks and layout; and who loads that."""


def main(arguments: Sequence[str]) -> None:
    """Every world of SAVED."""
    directory = Path(arguments[0])
    in_world(4, drifts(directory / "drifted"), directory / "meeting")
    for size, layout, others in SAVED:
        where = directory / f"saved_by_{size}"
        in_world(size, saves(layout, where), directory / "meeting")
        for other_size, other in others:
            in_world(other_size, loads(other, where), directory / "meeting")
            print(f"{layout} of {size} -> {other} of {other_size}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

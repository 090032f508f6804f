"""What does a resume take in host memory? `python -m tests.programs.memory DIRECTORY` says, over the state's size."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from tests.support.saves import Alone

WIDTH, LAYERS = 1024, 12


def training() -> TrainingState:
    """50 MB of weights, and an optimizer without state."""
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    return TrainingState([model], [torch.optim.AdamW(model.parameters())], {})


def size(state: TrainingState) -> int:
    return sum(tensor.nbytes for tensor in state.contents({}).tensors.values())


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(directory: Path) -> None:
    """Save a state of 150 MB, then load it into a model that is there and an optimizer that is empty."""
    store = CheckpointStore(directory)
    if not directory.exists():
        state = training()
        for parameter in state.models[0].parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimizers[0].step()
        store.acquire()
        commit(store, Alone(), snapshot(state, 1, 0, {}, {}))
        return
    state = training()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present, from here on
    before = peak_bytes()
    weights = size(state)
    load_latest(store, state, Alone(), print)
    print((weights + peak_bytes() - before) / size(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What does a checkpoint cost? Ours beside torch.save, DCP, Accelerate and Fabric, in turns, of one and the same state.

    python -m tests.benchmarks.checkpoints [MILLIONS_OF_PARAMETERS [ROUNDS [DIRECTORY]]]

The peers are installed into a virtual environment in DIRECTORY, or in one that is removed at the end.

Blocked: how long training waits. Durable: until the files are on disk; peers that do not flush are flushed after, and
that is counted. Load: into a model and an optimizer that exist, with ours verifying every byte. One thread, because
neighbours on the machine move that less. Nobody's page cache is dropped: all of them read what was just written.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from hpc.checkpoint.background import BackgroundSaver, Flight, Staging
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from tests.benchmarks.figures import conditions
from tests.benchmarks.peer_environment import install_peers, run_with_peers
from tests.support.saves import Alone

LAYERS = 12
MILLIONS, ROUNDS = "50", "3"
HERE = "here"


@dataclass
class Training:
    """A model and AdamW, with state."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


def training(millions: float) -> Training:
    """Layers of equal size, after one step."""
    width = int((millions * 1e6 / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return Training(model, optimizer)


@dataclass
class Row:
    """One way to save.

    Args:
        blocked: Seconds, one per round.
        durable: Seconds, one per round.
        load: Seconds, one per round; empty where it is the same as another row's.
        size: Bytes and files of one checkpoint.
    """

    blocked: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)


Save = Callable[[Path], Callable[[], object] | None]
"""Saves into a directory; returns what waits for the rest, if there is one."""
Load = Callable[[Path], object]


def flush(directory: Path) -> None:
    """What a peer leaves to the operating system."""
    for path in _files(directory):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@dataclass(frozen=True)
class Way:
    """How somebody saves and loads.

    Args:
        save: See Save.
        load: Into what was saved.
        begin: What is done once per run, and not counted.
    """

    save: Save
    load: Load
    begin: Callable[[Path], object] = id


def plain(each: Training) -> Way:
    """torch.save and fsync: what everything is measured by."""

    def save(directory: Path) -> None:
        torch.save([each.model.state_dict(), each.optimizer.state_dict()], directory / "state.pt")

    def load(directory: Path) -> None:
        model, optimizer = torch.load(directory / "state.pt", weights_only=True)
        each.model.load_state_dict(model)
        each.optimizer.load_state_dict(optimizer)

    return Way(save, load)


def torch_load_alone(each: Training) -> Way:
    """The same bytes, and nothing done with them."""
    return Way(plain(each).save, lambda directory: torch.load(directory / "state.pt", weights_only=True))


class Ours:
    """A save that training waits for, and one behind it."""

    def __init__(self, each: Training) -> None:
        self.state = TrainingState([each.model], [each.optimizer], {})
        self.staging = Staging()
        self.store = CheckpointStore(Path())

    def begin(self, directory: Path) -> None:
        self.store = CheckpointStore(directory)
        self.store.acquire()

    def save(self, directory: Path) -> None:
        del directory
        commit(self.store, Alone(), snapshot(self.state, 1, 0, {}, {}))

    def save_behind(self, directory: Path) -> Callable[[], object]:
        del directory
        flights: list[Flight] = []
        saver = BackgroundSaver(self.store, Alone(), flights.append)
        saver.start(self.staging.hold(snapshot(self.state, 1, 0, {}, {})), time.monotonic())
        return saver.land

    def load(self, directory: Path) -> None:
        if load_latest(CheckpointStore(directory), self.state, Alone(), print) is None:
            raise RuntimeError("nothing was loaded")


def ours(each: Training) -> Way:
    made = Ours(each)
    return Way(made.save, made.load, made.begin)


def ours_behind(each: Training) -> Way:
    made = Ours(each)
    return Way(made.save_behind, made.load, made.begin)


def _named(each: Training) -> dict[str, Any]:
    model, optimizer = get_state_dict(each.model, each.optimizer)
    return {"model": model, "optimizer": optimizer}


def dcp_load(each: Training) -> Load:
    def load(directory: Path) -> None:
        state = _named(each)
        dcp.load(state, checkpoint_id=str(directory))
        set_state_dict(each.model, each.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    return load


def dcp_sync(each: Training) -> Way:
    """Distributed Checkpoint."""

    def save(directory: Path) -> None:
        dcp.save(_named(each), checkpoint_id=str(directory))

    return Way(save, dcp_load(each))


def dcp_async(each: Training) -> Way:
    """Its asynchronous save, as it is by default."""

    def save(directory: Path) -> Callable[[], object]:
        future: Any = dcp.async_save(_named(each), checkpoint_id=str(directory))
        return future.result  # type: ignore[no-any-return]

    return Way(save, dcp_load(each))


def accelerate(each: Training) -> Way:
    """Accelerate.save_state and load_state."""
    module = importlib.import_module("accelerate")
    accelerator = module.Accelerator(cpu=True)
    each.model, each.optimizer = accelerator.prepare(each.model, each.optimizer)

    def save(directory: Path) -> None:
        accelerator.save_state(str(directory))

    return Way(save, lambda directory: accelerator.load_state(str(directory)))


def fabric(each: Training) -> Way:
    """Fabric.save and load."""
    module = importlib.import_module("lightning_fabric")
    made = module.Fabric(accelerator="cpu", devices=1)
    model, optimizer = made.setup(each.model, each.optimizer)
    state = {"model": model, "optimizer": optimizer}

    def save(directory: Path) -> None:
        made.save(str(directory / "state.ckpt"), state)

    return Way(save, lambda directory: made.load(str(directory / "state.ckpt"), state))


WAYS: dict[str, Callable[[Training], Way]] = {
    "torch.save + fsync": plain,
    "torch.load alone": torch_load_alone,
    "hpc, waiting": ours,
    "hpc, behind training": ours_behind,
    "DCP save": dcp_sync,
    "DCP async_save": dcp_async,
    "Accelerate save_state": accelerate,
    "Fabric save": fabric,
}


def measure(directory: Path, millions: float, rounds: int) -> dict[str, Row]:
    """Every way in turns, so that all suffer the same neighbours; the first round warms up and is not counted."""
    ways = {name: way(training(millions)) for name, way in WAYS.items()}
    rows = {name: Row() for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            place = directory / str(number)
            place.mkdir()
            _round(place, way, rows[name] if number else Row())
            shutil.rmtree(place)
    return rows


def _round(place: Path, way: Way, row: Row) -> None:
    way.begin(place)
    os.sync()  # nobody waits for what others have left to be written
    began = time.perf_counter()
    rest = way.save(place)
    row.blocked.append(time.perf_counter() - began)
    if rest is not None:
        rest()
    flush(place)
    row.durable.append(time.perf_counter() - began)
    row.size = (sum(path.stat().st_size for path in _files(place)), len(_files(place)))
    began = time.perf_counter()
    way.load(place)
    row.load.append(time.perf_counter() - began)


def rendered(rows: dict[str, Row]) -> str:
    """Medians in seconds, and over those of torch.save + fsync and torch.load."""
    saving, loading = median(rows["torch.save + fsync"].durable), median(rows["torch.load alone"].load)
    lines = [f"  {'':<22} {'blocked':>16} {'durable':>16} {'load':>16} {'MB':>8} {'files':>6}"]
    for name, row in rows.items():
        waits = row.blocked if name.endswith(("training", "async_save")) else row.durable
        cells = [(median(waits), saving), (median(row.durable), saving), (median(row.load), loading)]
        shown = " ".join(f"{seconds:7.3f} ({seconds / unit:4.2f} ×)" for seconds, unit in cells)
        lines.append(f"  {name:<22} {shown} {row.size[0] / 1e6:8.1f} {row.size[1]:6d}")
    return "\n".join(lines)


def main(millions: str = MILLIONS, rounds: str = ROUNDS, directory: str = "") -> str:
    """The table, from an interpreter that has the peers."""
    with tempfile.TemporaryDirectory(prefix="hpc") as temporary:
        python = install_peers(Path(directory or temporary) / "peers")
        return run_with_peers(python, "-m", "tests.benchmarks.checkpoints", HERE, millions, rounds).rstrip()


def here(millions: float, rounds: int) -> str:
    """The table, from this interpreter."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # peers warn of their own deprecations
    with tempfile.TemporaryDirectory() as directory:
        store = distributed.FileStore(f"{directory}/meeting", 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        rows = measure(Path(directory), millions, rounds)
        distributed.destroy_process_group()
    title = f"one checkpoint of {millions:g} M parameters with AdamW, medians of {rounds} rounds in turns, seconds"
    return f"{title}\n{rendered(rows)}"


if __name__ == "__main__":
    if sys.argv[1:2] == [HERE]:
        print(here(float(sys.argv[2]), int(sys.argv[3])))
    else:
        print(conditions(), main(*sys.argv[1:]), sep="\n")

"""Saves that are cut short by SIGKILL: `python -m tests.programs.kills DIRECTORY SEEDS`.

Two ranks save through the real protocol, over a pipe instead of gloo so that a trial takes milliseconds. After each
trial the newest checkpoint is loaded: it must be the one before or the new one, whole. The next life then goes on in
the same directory, with everything the dead ones have left there.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hpc import failpoints
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.save import Snapshot, commit
from hpc.checkpoint.shards import Part
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from tests.support.saves import Alone

RANKS = 2
NAMES = ("model/weight", "model/bias")
LONGEST_SAVE_SECONDS = 0.02


@dataclass(frozen=True)
class Pair:
    """Two ranks and a pipe."""

    rank: int
    pipe: Connection

    @property
    def world(self) -> Any:
        return replace(Alone.world, rank=self.rank, world_size=RANKS)

    def broadcast(self, value: Any) -> Any:
        if self.rank:
            return self.pipe.recv()
        self.pipe.send(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        if self.rank:
            self.pipe.send(value)
            return []
        return [value, self.pipe.recv()]

    def all_gather(self, value: Any) -> list[Any]:
        return list(self.broadcast(self.gather(value)))


def contents(step: int, rank: int) -> Snapshot:
    """Half of each tensor, full of the step's number."""
    half = torch.full((32, 64), float(step))
    parts = {name: Part(half, (64, 64), (32 * rank, 0), is_written=True) for name in NAMES}
    trainer = {"models": [{}], "optimizers": [], "others": {}, "step": step}
    return Snapshot(step, parts, trainer, {}, sharded=True)


def save(
    directory: Path, step: int, armed: failpoints.Failpoint | None = None, kill: random.Random | None = None
) -> None:
    """One life of two ranks that save once; one of them may be killed: at a failpoint, or at a random moment."""
    failpoints.ARMED = None
    store = CheckpointStore(directory, Retention(keep=2))
    store.acquire()
    failpoints.ARMED = armed
    ends = Pipe()
    pids = [_fork(store, step, rank, ends) for rank in range(RANKS)]
    for end in ends:
        end.close()
    if kill is not None:
        time.sleep(kill.uniform(0, LONGEST_SAVE_SECONDS))
        os.kill(pids[kill.randrange(RANKS)], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if armed is None and kill is None and any(codes):
        raise RuntimeError(f"a save that nobody disturbed ended with {codes}")
    if armed is not None and codes[armed.rank] != -signal.SIGKILL:
        raise RuntimeError(f"rank {armed.rank} was to be killed at {armed.name}, and ended with {codes}")


def _fork(store: CheckpointStore, step: int, rank: int, ends: tuple[Connection, Connection]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        ends[1 - rank].close()
        commit(store, Pair(rank, ends[rank]), contents(step, rank))
        os._exit(0)
    except (EOFError, OSError):  # the other one is dead
        os._exit(1)


def loaded(directory: Path) -> int:
    """The step of the newest checkpoint, all of whose bytes belong to it."""
    model = torch.nn.Module()
    for name in NAMES:
        model.register_buffer(name.split("/")[1], torch.zeros(64, 64))
    store = CheckpointStore(directory)
    reports: list[str] = []
    resumed = load_latest(store, TrainingState([model], [], {}), Alone(), reports.append)
    if resumed is None or reports:
        raise RuntimeError(f"nothing whole is left: {reports}")
    step = resumed.checkpoint.step
    if resumed.trainer["step"] != step or not all(bool((each == step).all()) for each in model.buffers()):
        raise RuntimeError(f"step {step} is a mix")
    return step


def trial(directory: Path, **fault: Any) -> str:
    """A life that is killed, or not; what is loaded after it."""
    before = loaded(directory)
    save(directory, before + 1, **fault)
    outcome = {before: "previous", before + 1: "new"}.get(loaded(directory))
    if outcome is None:
        raise RuntimeError(f"after step {before} came {loaded(directory)}")
    return outcome


def main(directory: Path, seeds: int) -> None:
    """Every failpoint on every rank that passes it, then random moments; whatever is left never stops the next save."""
    save(directory, 1)
    save(directory, 2)
    for name in failpoints.NAMES:
        for rank in range(RANKS if name in failpoints.EVERYWHERE else 1):
            outcome = trial(directory, armed=failpoints.Failpoint(name, rank, 1))
            print(f"{name} on rank {rank}: {outcome}, then {trial(directory)}", flush=True)
    for seed in range(seeds):
        print(f"seed {seed}: {trial(directory, kill=random.Random(seed))}", flush=True)
    print(f"undisturbed: {trial(directory)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

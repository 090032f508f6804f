"""Stacks of real processes: one whose Python is held by C, one that is stopped, and one that cannot answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hpc.run.pulse import Pulse, process_began
from hpc.stop.stacks import is_here, is_traced, state_of, write_stacks
from tests.conftest import ROOT, clean_environment
from tests.support.local_sweep import wait_for

RANK = """
import ctypes, sys, time
from pathlib import Path
from hpc.run.pulse import PulseFile
from hpc.stop.stacks import answer_with_stacks
rank = int(sys.argv[2])
file = PulseFile(Path(sys.argv[1]), rank)
if rank != 2:
    answer_with_stacks(file.descriptor)
def hold_python():
    print("ready", flush=True)
    ctypes.PyDLL(None).sleep(600)
def wait():
    print("ready", flush=True)
    time.sleep(600)
hold_python() if rank == 0 else wait()
"""


def sleeps(pid: int) -> bool:
    return state_of(pid) == "S"


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[Pulse]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)],
            cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    pulses = []
    for rank, process in enumerate(processes):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wait_for(partial(sleeps, process.pid), "it sleeps")  # "ready" comes a moment before
        began = process_began(process.pid)
        told = ("a", rank, os.uname().nodename, process.pid, began, 7, "training", 1.0, 1.0, 1.0, 1.0)
        pulses.append(Pulse(*told))
    yield pulses
    for process in processes:
        process.kill()
        process.communicate()


def test_every_rank_of_the_node_is_asked_for_its_stacks(ranks: list[Pulse], tmp_path: Path) -> None:
    held, stopped, deaf = ranks
    os.kill(stopped.pid, signal.SIGSTOP)
    wait_for(lambda: state_of(stopped.pid) == "T", "it is stopped")
    elsewhere = Pulse("a", 3, "another-node", 1, 1, 7, "training", 1.0, 1.0, 1.0, 1.0)
    later = Pulse("a", 4, held.host, held.pid, held.pid_began + 1, 7, "training", 1.0, 1.0, 1.0, 1.0)
    path = tmp_path / "hangs" / "a.node_0.txt"
    write_stacks(tmp_path, path, [*ranks, elsewhere, later], held.host)
    parts = path.read_text().split(f" on {held.host}, process ")
    assert len(parts) == 4
    assert "in hold_python" in parts[1]
    assert "State: T (stopped)" in parts[2]
    assert "in wait" in parts[2]
    assert "State: S (sleeping)" in parts[3]
    assert "in wait" in parts[3] or "did not answer" in parts[3]
    assert is_here(deaf, held.host), "a signal without a handler would have ended it"
    with pytest.raises(FileExistsError):
        write_stacks(tmp_path, path, ranks, held.host)
    assert not is_traced(deaf.pid)

"""Two real mpiexec at once on one machine: hydra's ranks share every variable that could tell two worlds apart."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpc.connect.beacon import FIRST_PORT, PORT_COUNT
from hpc.connect.mpiexec import control_port
from hpc.testing.cluster import SlurmCluster
from tests.conftest import ROOT, clean_environment

pytestmark = pytest.mark.slurm

HELD_BACK = 'test $PMI_RANK = 0 || until test -e go; do sleep 0.1; done; "$0" "$@"; exit $?'
"""Rank 1 waits for `go`; the shell stays, as a user's script does, between mpiexec's proxy and the rank."""

Launch = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def launch(cluster: SlurmCluster) -> Iterator[Launch]:
    """Start an mpiexec of two ranks in a directory, and see its beacon; whatever is left at the end is killed."""
    del cluster  # what it needs brings MPICH too
    meeting = [sys.executable, str(ROOT / "tests" / "programs" / "meeting.py")]
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    started = []

    def start(directory: Path) -> subprocess.Popen[bytes]:
        directory.mkdir()
        command = ["mpiexec.hydra", "-n", "2", "sh", "-c", HELD_BACK, *meeting, str(directory), "{}"]
        started.append(subprocess.Popen(command, cwd=directory, env=environ))
        while not _has_lit_beacon(started[-1].pid):
            assert started[-1].poll() is None
            time.sleep(0.1)
        return started[-1]

    yield start
    for process in [each for mpiexec in started for each in _descendants(mpiexec.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # a proxy of hydra whose mpiexec was killed spins for ever
    for mpiexec in started:
        mpiexec.kill()
        mpiexec.wait()


def test_two_mpiexec_at_once_are_worlds_of_their_own(launch: Launch, tmp_path: Path) -> None:
    first, second = launch(tmp_path / "0"), launch(tmp_path / "1")
    for process, directory in ((second, tmp_path / "1"), (first, tmp_path / "0")):
        (directory / "go").touch()  # the second's last rank meets the first's beacon on the way to its own
        assert process.wait(timeout=200) == 0
    seen = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("[01]/*.json"))]
    assert [(rank["rank"], rank.get("error")) for rank in seen] == [(0, None), (1, None)] * 2


def test_a_process_without_mpiexec_has_no_control_port() -> None:
    assert control_port() == ""


def _has_lit_beacon(mpiexec: int) -> bool:
    """Whether a descendant listens where beacons do."""
    ranks = {child.pid for child in _descendants(mpiexec)}
    connections = [connection for connection in psutil.net_connections("tcp") if connection.pid in ranks]
    ports = [each.laddr.port for each in connections if each.laddr and each.status == psutil.CONN_LISTEN]
    return any(FIRST_PORT <= port < FIRST_PORT + PORT_COUNT for port in ports)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []

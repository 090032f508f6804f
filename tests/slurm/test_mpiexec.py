"""Two real mpiexec at once on one machine: hydra's ranks share every variable that could tell two worlds apart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpc.world.beacon import FIRST_PORT, PORT_COUNT
from hpc.world.mpiexec import control_port
from tests.conftest import ROOT, clean_environment
from tests.slurm.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

HELD_BACK = 'test $PMI_RANK = 0 || until test -e ../go; do sleep 0.1; done; "$0" "$@"; exit $?'
"""Rank 1 waits for `go`; the shell stays, as a user's script does, between mpiexec's proxy and the rank."""


def test_two_mpiexec_at_once_are_worlds_of_their_own(cluster: SlurmCluster, tmp_path: Path) -> None:
    del cluster  # what it needs brings MPICH too
    meeting = [sys.executable, str(ROOT / "tests" / "slurm" / "meeting.py")]
    environ = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    started = []
    for directory in (tmp_path / "0", tmp_path / "1"):
        directory.mkdir()
        command = ["mpiexec.hydra", "-n", "2", "sh", "-c", HELD_BACK, *meeting, str(directory), "{}"]
        started.append(subprocess.Popen(command, cwd=directory, env=environ))
    while _lit_beacons([process.pid for process in started]) < 2:
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)
    (tmp_path / "go").touch()  # both beacons are there: the second ranks have a choice
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    seen = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("[01]/*.json"))]
    assert [(rank["rank"], rank.get("error")) for rank in seen] == [(0, None), (1, None)] * 2


def test_a_process_without_mpiexec_has_no_control_port() -> None:
    assert control_port() == ""


def _lit_beacons(roots: list[int]) -> int:
    """How many descendants of these processes listen where beacons do."""
    ranks = {child.pid for root in roots for child in psutil.Process(root).children(recursive=True)}
    connections = [connection for connection in psutil.net_connections("tcp") if connection.pid in ranks]
    ports = [each.laddr.port for each in connections if each.laddr and each.status == psutil.CONN_LISTEN]
    return sum(FIRST_PORT <= port < FIRST_PORT + PORT_COUNT for port in ports)

"""Another user of the machine can at worst make a start fail with a sentence: he gets no word, and runs no code.

He knows the job's name, its user and its ports, and this program; he does not know the secret in the sweep's directory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from hpc.connect.beacon import Identity
from hpc.run.point import Point
from hpc.run.points import Sweep
from tests.conftest import clean_environment
from tests.support.strangers import stranger, why_there_is_none

pytestmark = [pytest.mark.gloo, pytest.mark.skipif(bool(why_there_is_none()), reason=why_there_is_none())]

PAYLOAD = "import sys; from hpc.submit.payload import run_point; run_point(*sys.argv[1:])"


class Job:
    """Two ranks of a submitted point, as `cluster=local` starts them, but for a name that is known before."""

    def __init__(self, directory: Path, stack: ExitStack, timeout_seconds: int) -> None:
        runtime = {"device": "cpu", "rendezvous_timeout_seconds": timeout_seconds, "trackers": []}
        config = {
            "experiment": {"target": "tests.programs.gathering.train"},
            "hardware": {"tasks_per_node": 2},
            "runtime": runtime,
            "run_dir": str(directory / "0"),
        }
        Sweep(directory, (Point("0", (), config),)).write()
        self.directory, self.stack, self.name = directory, stack, f"{uuid.uuid4()}"
        self.ladder = Identity(f"submitit-local.{self.name}", 0, os.getuid(), b"").ports

    def start(self, rank: int) -> subprocess.Popen[str]:
        environ = clean_environment(
            SUBMITIT_EXECUTOR="local",
            SUBMITIT_LOCAL_JOB_ID=self.name,
            SUBMITIT_LOCAL_NTASKS="2",
            SUBMITIT_LOCAL_GLOBALID=str(rank),
            SUBMITIT_LOCAL_LOCALID=str(rank),
        )
        command = [sys.executable, "-c", PAYLOAD, str(self.directory), "0"]
        process = subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        return process

    @property
    def value(self) -> object:
        return json.loads((self.directory / "0" / "finished.json").read_text())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[[int], Job]]:
    with ExitStack() as stack:
        yield lambda timeout_seconds: Job(tmp_path / "sweep", stack, timeout_seconds)


def listening(process: subprocess.Popen[str], count: int) -> list[int]:
    """The ports at which a process listens, once there are so many; all of them on loopback."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [each for each in psutil.Process(process.pid).net_connections("tcp") if each.status == "LISTEN"]
        if len(found) >= count:
            assert {each.laddr.ip for each in found if each.laddr} == {"127.0.0.1"}
            return [each.laddr.port for each in found if each.laddr]
        time.sleep(0.05)
    raise AssertionError(f"it does not listen, but says {process.communicate(timeout=10)}")


def test_who_takes_all_ports_ends_the_start_with_a_sentence(job: Callable[[int], Job]) -> None:
    victim = job(2)
    with stranger("squat", *victim.ladder):
        ranks = [victim.start(rank) for rank in (0, 1)]
        said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [78, 78]
    assert f"hpc: One of the ports {victim.ladder[0]}, " in said[0]
    assert "hpc: Rank 1 of 2 must find rank 0, but nobody answered for job submitit-local." in said[1]
    assert "Traceback" not in "".join(said)


def test_who_pretends_to_be_rank_0_and_disturbs_is_passed_over(job: Callable[[int], Job]) -> None:
    victim = job(100)
    with stranger("pretend", "127.0.0.1", f"submitit-local.{victim.name}", os.getuid(), 5):
        second = victim.start(1)
        assert second.stdout
        doubted = next((line for line in second.stdout if "says that it is rank 0 of submitit-local." in line), None)
        second.send_signal(signal.SIGSTOP)  # so that the real rank 0 is disturbed before it is found
        first = victim.start(0)
        with stranger("disturb", *listening(first, 2)):
            second.send_signal(signal.SIGCONT)
            said = [rank.communicate(timeout=200)[0] for rank in (first, second)]
    assert doubted, said
    assert [first.returncode, second.returncode] == [0, 0], said
    assert "3" in str(victim.value)


def test_who_writes_into_the_store_is_a_sentence_and_runs_no_code(job: Callable[[int], Job], tmp_path: Path) -> None:
    victim, trap = job(100), tmp_path / "trap"
    first = victim.start(0)
    (store,) = set(listening(first, 2)) - {*victim.ladder}
    with stranger("forge", store, trap, "hello/1"):
        said = first.communicate(timeout=120)[0]
    assert first.returncode == 78
    assert "hpc: Rank 1 must have rank 0's secret, but has another: every rank must have the same secret" in said
    assert "Traceback" not in said
    assert not trap.exists()

"""Signals and the clock become one flag; nothing happens inside a handler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.slurm.deadline import allocation_end
from hpc.stop.agreement import Agreement
from hpc.stop.requests import StopCause, StopRequests
from tests.conftest import clean_environment

RECEIVER = """
import os, signal, sys, time
from hpc.stop.requests import stop_requests
requests = stop_requests()
assert "torch" not in sys.modules
{body}
"""


def run_receiver(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has the handlers installed."""
    return subprocess.run(
        [sys.executable, "-c", RECEIVER.format(body=body)],
        env=clean_environment(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
def test_a_signal_is_recorded_and_nothing_else(name: str) -> None:
    done = run_receiver(f"os.kill(os.getpid(), signal.{name}); print(requests.current().name)")
    assert (done.returncode, done.stdout) == (0, f"{name}\n")


def test_a_hundred_signals_are_one_request() -> None:
    done = run_receiver("[os.kill(os.getpid(), signal.SIGUSR2) for _ in range(100)]; print(requests.current().name)")
    assert (done.returncode, done.stdout) == (0, "SIGUSR2\n")


def test_the_second_interrupt_is_meant() -> None:
    done = run_receiver("os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1); os.kill(os.getpid(), signal.SIGINT)")
    assert "KeyboardInterrupt" in done.stderr
    assert "Ctrl-C again stops at once" in done.stderr


def test_a_signal_is_seen_while_the_main_thread_is_busy_in_c() -> None:
    body = """
import threading
requests.on_sigterm = lambda: os._exit(42)
threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
import ctypes
ctypes.PyDLL(None).usleep  # resolve it first
libc = ctypes.CDLL(None)
end = time.monotonic() + 20
while time.monotonic() < end:
    libc.sleep(20)
"""
    assert run_receiver(body).returncode == 42


def test_a_forked_child_has_the_default_dispositions() -> None:
    body = """
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(writer, b"!")
    time.sleep(20)
    os._exit(0)
os.read(reader, 1)
os.kill(pid, signal.SIGTERM)
_, status = os.waitpid(pid, 0)
print(os.WTERMSIG(status), requests.current().name)
"""
    done = run_receiver(body)
    assert done.stdout == f"{int(signal.SIGTERM)} NONE\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_while_python_ends_does_not_fail_a_run_that_is_done(name: str) -> None:
    """The last life of a job with a time limit: Slurm's signal came after "Finished", and the job was FAILED."""
    body = f"""
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.{name}):  # long after the handlers are gone
        kill(pid, number)

late = Late()
late.itself = late
sys.late = late
"""
    done = run_receiver(body)
    assert done.returncode == 0, done.stderr


def test_the_clock_counts_as_a_request() -> None:
    requests = StopRequests()
    requests.watch_clock(time.time() + 100, grace_seconds=50)
    assert requests.current() is StopCause.NONE
    requests.watch_clock(time.time() + 100, grace_seconds=101)
    assert requests.current() is StopCause.TIME_LIMIT


def test_a_world_of_one_agrees_with_itself() -> None:
    requests = StopRequests()
    agreement = Agreement(requests, None)
    assert agreement.at_boundary(1, 0.1) is StopCause.NONE
    requests.cause = StopCause.SIGTERM
    assert agreement.at_boundary(2, 0.1) is StopCause.SIGTERM
    assert agreement.finish() is StopCause.NONE


def test_the_end_of_the_allocation_is_in_the_environment_of_newer_slurms() -> None:
    assert allocation_end({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1795466285"}) == 1795466285


def test_outside_a_job_there_is_no_end() -> None:
    assert allocation_end({}) is None


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "3"}, "10_3"),
    ],
)
def test_an_older_slurm_is_asked_about_this_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], asked: str
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\necho 'JobId=1 EndTime=2026-11-23T20:10:30 X=1'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert allocation_end(environ) is not None
    assert (tmp_path / "asked").read_text() == f"show job {asked} --oneliner\n"

"""What is tried on this machine: with executables on PATH, bad directories, and clocks that differ."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hpc.doctor import machine, place
from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding
from hpc.doctor.look import last_save_seconds
from hpc.run.events import Committed
from hpc.run.journal import Journal
from tests.conftest import FakeSlurm, Run


def command(directory: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executable of this name, first on PATH, that prints a text."""
    (directory / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    (directory / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_a_good_directory_is_left_as_it_was(tmp_path: Path) -> None:
    findings = [finding for check in place.CHECKS for finding in check(tmp_path)]
    assert {"file_system", "clock", "room"} <= {finding.check for finding in findings}
    assert PROBLEM not in {finding.level for finding in findings}
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_a_problem() -> None:
    (finding,) = place.file_system(Path("/proc"))
    assert (finding.level, "/proc cannot be written" in finding.text) == (PROBLEM, True)
    assert list(place.clock(Path("/proc"))) == []


def test_a_clock_that_differs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 100)
    (finding,) = place.clock(tmp_path)
    assert finding.level == NOTE
    assert "ahead of this node's" in finding.text


def test_few_inodes_and_little_space_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(os.statvfs(tmp_path))
    values[2:9] = (1000, 50, 50, 100_000, 400, 400, 0)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    inodes, space = place.room(tmp_path)
    assert (inodes.level, "400 inodes left, enough for 10 points" in inodes.text) == (NOTE, True)
    assert space.level == NOTE


@pytest.mark.parametrize(
    ("used", "level", "words"),
    [
        ("100", OK, "leaves 99,900 of 100,000"),
        ("95000*", NOTE, "enough for 125 points"),
        ("99999", PROBLEM, "leaves 1"),
    ],
)
def test_the_quota_of_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: str, level: str, words: str
) -> None:
    text = "Disk quotas for user you (uid 1):\n  Filesystem blocks quota limit grace files quota limit grace\n"
    command(tmp_path, "quota", f"{text}/scratch 5 0 0 0 {used} 100000 110000 0", monkeypatch)
    (finding,) = place.quota(tmp_path)
    assert (finding.level, words in finding.text) == (level, True), finding


BUILDS = [
    (("2.13.0+cu128", "12.8"), "550.54", OK, "for CUDA 12.8 fits driver 550.54"),
    (("2.13.0+cu128", "12.8"), "470.10", PROBLEM, "needs driver 525 or newer, but here is 470.10"),
    (("2.13.0+cpu", ""), "550.54", PROBLEM, "has no CUDA"),
    (("2.13.0+cpu", ""), "no devices were found", OK, "no NVIDIA driver"),
    (("", ""), "550.54", PROBLEM, "cannot be found"),
]


@pytest.mark.parametrize(("build", "driver", "level", "words"), BUILDS)
def test_torch_and_the_driver_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: tuple[str, str], driver: str, level: str, words: str
) -> None:
    command(tmp_path, "nvidia-smi", driver, monkeypatch)
    monkeypatch.setattr(machine, "_torch_build", lambda: build)
    (finding,) = machine.torch_fit()
    assert (finding.level, words in finding.text) == (level, True), finding


def test_the_build_of_torch_is_read_without_importing_it() -> None:
    import torch

    assert machine._torch_build() == (torch.__version__, torch.version.cuda or "")


def test_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = machine.shared_memory()
    assert finding.check == "shared_memory"
    monkeypatch.setattr(machine, "LITTLE_SHARED_MEMORY", 1 << 60)
    assert [each.level for each in machine.shared_memory()] == [NOTE]
    monkeypatch.setattr(machine, "SHARED_MEMORY", Path("/nowhere"))
    assert [each.level for each in machine.shared_memory()] == [PROBLEM]


def test_a_host_that_does_not_know_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-host.invalid")
    assert [each.level for each in machine.ports()] == [NOTE]


def test_the_last_save_of_the_newest_sweep_counts(tmp_path: Path) -> None:
    assert last_save_seconds(tmp_path, {"XDG_STATE_HOME": str(tmp_path)}) is None
    point = tmp_path / "runs" / "day" / "sweep" / "0"
    point.mkdir(parents=True)
    for name in ("sweep.json", "points.jsonl"):
        (point.parent / name).write_text("{}\n")
    for attempt, seconds in (("a", 9.0), ("b", 4.0)):
        Journal(point, attempt).write(Committed(10, seconds, 1.0))
        time.sleep(0.01)  # the journal keeps milliseconds
    assert last_save_seconds(tmp_path, {"XDG_STATE_HOME": str(tmp_path)}) == 4.0


FIELDS = {"check", "level", "text", "advice", "about"}


def test_without_slurm_the_machine_alone_is_looked_at(run_hpc: Run, tmp_path: Path) -> None:
    done = run_hpc("doctor", "--json", environ={"PATH": "/nowhere"})
    answer = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert (answer["format"], answer["cluster"], answer["release"]) == (1, "", "")
    assert {frozenset(finding) for finding in answer["findings"]} == {frozenset(FIELDS)}
    assert {finding["about"] for finding in answer["findings"]} == {"this machine"}
    refused = run_hpc("doctor", "--canary", environ={"PATH": "/nowhere"})
    assert (refused.returncode, refused.stdout) == (78, "")
    assert "sbatch must be on PATH for --canary" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_controller_that_does_not_answer_is_a_problem(run_hpc: Run, fake_slurm: FakeSlurm) -> None:
    (fake_slurm.directory / "bin" / "scontrol").write_text("#!/bin/sh\necho Unable to contact >&2\nexit 1\n")
    done = run_hpc("doctor", environ={**fake_slurm.environ, "COLUMNS": "80"})
    assert done.returncode == 1
    assert "PROBLEM  controller  `scontrol show config` failed: Unable to contact." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


def test_the_exit_code_is_about_problems_only() -> None:
    from hpc.doctor.finding import exit_code

    assert exit_code([Finding("a", OK, "x."), Finding("b", NOTE, "y.")]) == 0
    assert exit_code([Finding("a", OK, "x."), Finding("b", PROBLEM, "y.", "z.")]) == 1

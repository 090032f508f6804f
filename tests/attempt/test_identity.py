"""Every attempt has a name of its own, which all of its ranks say alike."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.attempt.attempt import Attempt, begin
from hpc.attempt.failure import note_failure
from hpc.attempt.identity import name_of, needs_stamp
from hpc.run.directory import RunDirectory
from hpc.run.events import Failed
from hpc.run.secret import Secret
from hpc.world import resolve_world
from tests.conftest import ROOT
from tests.support.events import told

JOB = {"SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "linux"}
SECRET = Secret(b"", "nobody")
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "RANK": "0", "WORLD_SIZE": "2",
    "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


def step(number: int, rank: int = 0, **more: str) -> dict[str, str]:
    """A rank of a step of two tasks."""
    return {
        **JOB, "SLURM_STEP_ID": str(number), "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "node1", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", **more,
    }  # fmt: skip


def name(environ: Mapping[str, str]) -> str:
    return name_of(resolve_world(environ), environ)


def attempt(directory: Path, environ: Mapping[str, str], stamp: str = "agreed") -> Attempt:
    return begin(resolve_world(environ), SECRET, directory, lambda *_: stamp, dict(environ))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (step(0), "linux.42-0.0"),
        (step(1), "linux.42-0.1"),
        (step(0, SLURM_RESTART_COUNT="3"), "linux.42-3.0"),
        (JOB, "linux.42-0.alone"),
        ({"SLURM_JOB_ID": "42"}, "slurm.42-0.alone"),
        (TORCHRUN, "torchrun.none-0"),
        ({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"}, "torchrun.none-2"),
        ({**JOB, **TORCHRUN, "SLURM_RESTART_COUNT": "1"}, "linux.42-1.torchrun.none-0"),
        ({**TORCHRUN, "TORCHELASTIC_RUN_ID": "../../my run/é"}, "torchrun..._.._my_run__-0"),
        ({}, "alone-0"),
    ],
)
def test_the_launcher_and_the_job_around_make_the_name(environ: dict[str, str], expected: str) -> None:
    assert name(environ) == expected


def test_all_ranks_of_a_step_say_the_same() -> None:
    assert name(step(0, rank=0)) == name(step(0, rank=1))
    assert not needs_stamp(resolve_world(step(0)))


def test_a_name_that_comes_again_gets_a_stamp_that_all_ranks_share(tmp_path: Path) -> None:
    asked: list[str] = []

    def agree(key: str, proposal: str) -> str:
        asked.append(key)
        return f"rank-0s-{len(proposal)}"

    first, second = (begin(resolve_world(TORCHRUN), SECRET, tmp_path, agree, dict(TORCHRUN)) for _ in range(2))
    assert re.fullmatch(r"torchrun\.none-0\.rank-0s-22", first.id)
    assert len(asked) == len({*asked}) == 2  # a key is set once: a fast rank must not read the value of the life before
    assert first.world == second.world


def test_a_world_of_one_asks_nobody_and_is_new_each_time(tmp_path: Path) -> None:
    def nobody(key: str, proposal: str) -> str:
        raise AssertionError(key + proposal)

    names = {begin(resolve_world({}), SECRET, tmp_path, nobody, {}).id for _ in range(5)}
    assert len(names) == 5
    assert all(re.fullmatch(r"alone-0\.\d{8}-\d{6}-[0-9a-f]{6}", each) for each in names)


def test_two_steps_at_once_do_not_read_each_others_failure(tmp_path: Path) -> None:
    first, second = attempt(tmp_path, step(0)), attempt(tmp_path, step(1))
    note_failure(first, ValueError("the first step's"))
    assert first.record.exists()
    assert not second.record.exists()
    note_failure(second, ValueError("the second step's"))
    assert "the second step's" in second.record.with_suffix(".txt").read_text()
    assert {event.reason for event in told(tmp_path, Failed)} == {
        "ValueError: the first step's",
        "ValueError: the second step's",
    }


def test_the_first_rank_to_fail_is_the_cause_and_the_others_are_its_echo(tmp_path: Path) -> None:
    first = attempt(tmp_path, step(0, rank=0))
    second = replace(first, world=resolve_world(step(0, rank=1)))
    note_failure(second, ValueError("cause"))
    note_failure(first, RuntimeError("Connection closed by peer"))
    text = first.record.with_suffix(".txt").read_text()
    assert text.startswith("hpc: rank 1 of 2 on ")
    assert "hpc: rank 0 failed after that: RuntimeError: Connection closed by peer" in text
    assert [(event.rank, event.reason) for event in told(tmp_path, Failed)] == [(1, "ValueError: cause")]


def test_an_older_record_of_the_same_name_is_not_this_attempts(tmp_path: Path) -> None:
    """As where a shell loop in one step starts the program again."""
    old = RunDirectory(tmp_path).failure("torchrun.none-0.agreed")
    old.parent.mkdir()
    old.write_text("hpc: rank 0 of 2 on node1 failed first: long ago")
    new = attempt(tmp_path, TORCHRUN)
    assert new.id == "torchrun.none-0.agreed"
    assert not new.record.exists()
    note_failure(new, ValueError("now"))
    assert "now" in new.record.with_suffix(".txt").read_text()
    assert "long ago" in old.read_text()


@pytest.mark.parametrize(
    ("restarts", "shown"), [("0", "of the first life"), ("1", "of the second life"), ("2", ""), ("10", "")]
)
def test_the_epilogue_shows_the_record_of_this_life_of_the_job(tmp_path: Path, restarts: str, shown: str) -> None:
    failures = RunDirectory(tmp_path / "sweep" / "0").failures
    failures.mkdir(parents=True)
    for number, (record, text) in enumerate(
        [
            ("linux.42-0.0", "of an earlier step of the first life"),
            ("linux.42-0.torchrun.none-0.20261125-170501-9f3a1c", "of the first life"),
            ("linux.42-1.0", "of the second life"),
            ("linux.421-0.0", "of another job"),
            ("linux.4-2.0", "of yet another job"),
            ("other.42-2.0", "of another cluster"),
        ]
    ):
        (failures / f"{record}.txt").write_text(f"{text}\n")
        os.utime(failures / f"{record}.txt", (number, number))
    program = 'hpc_sweep=$1 hpc_point=0 hpc_restarts=$2 hpc_job=42; . "$3/verdicts.sh"; (exit 1); . "$3/epilogue.sh"'
    templates = str(ROOT / "slurm_templates")
    done = subprocess.run(
        ["bash", "-c", program, "bash", str(tmp_path / "sweep"), restarts, templates],
        env={"PATH": os.environ["PATH"], **JOB}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (f"{shown}\n" if shown else "")

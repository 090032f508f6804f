"""A script that makes a Runtime by itself has what a submitted task has: lives, logs, failure records, a clock."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.attempt.life import current
from hpc.errors import NoProgressError
from hpc.run.directory import RunDirectory
from hpc.run.events import Closed, Committed, Event, Failed, Resumed, SaveFailed, Started, Stopped
from hpc.run.journal import read_journal
from hpc.run.lives import lives
from tests.conftest import ROOT, clean_environment
from tests.programs.by_hand import main
from tests.support.events import told
from tests.support.process_state import in_another_process, own_process_state

__all__ = ["own_process_state"]


def kinds(directory: Path) -> list[type[Event]]:
    return [type(event) for event in read_journal(directory)]


def test_a_script_that_ends_well_has_a_life_and_a_log(tmp_path: Path) -> None:
    for _ in range(4):  # a script with nothing left to do may be started as often as one likes
        main(str(tmp_path), "4")
        in_another_process()
    assert kinds(tmp_path) == [Started, Resumed, Committed, Closed, *[Started, Resumed, Closed] * 3]
    life = lives(read_journal(tmp_path))[0]
    assert life.left_well
    assert life.attempt.startswith("alone-0.")
    assert RunDirectory(tmp_path).log(0).exists()
    assert not RunDirectory(tmp_path).finished.exists()  # only a task knows that the training function has returned
    assert current() is None


def test_a_script_that_fails_writes_down_why_and_gives_up_after_its_budget(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="asked to fail"):
            main(str(tmp_path), "4", "fail")
        in_another_process()
    assert [event.reason for event in told(tmp_path, Failed)] == ["ValueError: asked to fail"] * 2
    records = [path.read_text() for path in RunDirectory(tmp_path).failures.glob("*.txt")]
    assert [each.splitlines()[0].startswith("hpc: rank 0 of 1 on ") for each in records] == [True, True]
    assert all("\nValueError: asked to fail\nhpc: it was in step 3, " in each for each in records)
    with pytest.raises(NoProgressError, match=r"the last of which failed on rank 0 \(ValueError: asked to fail\)"):
        main(str(tmp_path), "4")
    assert told(tmp_path, Failed)[-1].code == 76
    assert current() is None


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("Runtime({'seed': 'x'})", 78, "hpc: "),
        ("with Runtime({'run_dir': 'run'}) as runtime: runtime.steps(None, total=1)", 78, "hpc: steps takes a loader"),
        ("raise DivergedError('It has diverged.')", 79, "hpc: It has diverged.\n"),
        ("raise KeyError('mine')", 1, "Traceback"),
    ],
)
def test_an_error_of_ours_ends_a_script_with_its_sentence_and_code(
    tmp_path: Path, line: str, code: int, words: str
) -> None:
    program = f"from hpc import Runtime\nfrom hpc.errors import DivergedError\nwith Runtime({{}}): pass\n{line}\n"
    (tmp_path / "script.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.startswith(words)) == (code, True), done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)


def test_a_script_is_stopped_before_its_allocation_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 10))  # its grace is 150 s
    with pytest.raises(SystemExit, match="75"):
        main(str(tmp_path), "1000", "slow")
    (stop,) = told(tmp_path, Stopped)
    assert stop.cause == "TIME_LIMIT"
    assert stop.attempt.startswith("slurm.42-0.alone.")
    assert lives(read_journal(tmp_path))[0].left_well


@pytest.mark.gloo
def test_under_torchrun_all_ranks_share_one_attempt(tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [*torchrun, str(ROOT / "tests" / "programs" / "by_hand.py"), str(tmp_path), "1000", "fail", "1"],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    events = read_journal(tmp_path)
    kinds = {type(event) for event in events}
    assert kinds - {SaveFailed} == {Started, Resumed, Failed}, done.stderr  # rank 0 may be in a save when rank 1 fails
    assert len({event.attempt for event in events}) == 1
    assert events[0].attempt.startswith("torchrun.")
    failure = lives(events)[-1].first_failure
    assert failure is not None
    assert (failure.rank, failure.reason) == (1, "ValueError: asked to fail")
    (record,) = RunDirectory(tmp_path).failures.glob("*.txt")
    assert record.name == f"{failure.attempt}.txt"
    report = json.loads(record.with_suffix(".json").read_text())
    assert (report["cause"]["rank"], report["cause"]["told_by"], report["world_size"]) == (1, "rank", 2)
    assert all(RunDirectory(tmp_path).log(rank).exists() for rank in (0, 1))
    assert len([*RunDirectory(tmp_path).journal.iterdir()]) == 2

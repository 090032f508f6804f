"""Why a point waits or failed, where only Slurm or the end of a log can tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.attempt.cause import KINDS, kind_of
from hpc.attempt.evidence import Evidence
from hpc.attempt.first_cause import first_cause
from hpc.run.events import Failed
from hpc.slurm.reasons import REASONS, explained
from hpc.slurm.states import ENDED, WAITING, state_word
from hpc.slurm.step_end import step_end
from tests.conftest import FakeSlurm
from tests.support.sweeps import BEGAN, Made, hpc, told_by


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "higher priority"),
        ("(Resources)", "nodes to become free"),
        ("QOSMaxCpuPerUserLimit", "one user of this QOS"),
        ("QOSMaxGRESPerUser", "one user of this QOS"),
        ("AssocGrpCPUMinutesLimit", "used up its hours"),
        ("AssocGrpGRES", "your account uses as much"),
        ("ReqNodeNotAvail, UnavailableNodes:node[1-4]", "down, drained or reserved"),
        ("Nodes required for job are DOWN, DRAINED or reserved", "drained"),
        ("launch_failed_requeued_held", "scontrol release"),
        ("SomethingOfNextYear", ""),
    ],
)
def test_reasons_are_explained_and_new_ones_are_not_guessed(reason: str, words: str) -> None:
    assert words.lower() in explained(reason).lower()
    assert bool(words) == bool(explained(reason))


def test_every_explanation_is_a_sentence() -> None:
    assert [text for text in REASONS.values() if not text[0].isupper() or not text.endswith(".")] == []


def test_states_of_slurm_are_either_waiting_or_ended() -> None:
    assert WAITING.isdisjoint(ENDED)
    assert [state_word(text) for text in ("CANCELLED by 1000", "RUNNING+COMPLETING", "pending")] == [
        *("CANCELLED", "RUNNING", "PENDING"),
    ]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "oom"),
        (1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "oom"),
        (1, "KeyError: 'oom'", "crash"),
        (78, "hardware.nodes must be at least 1, but is 0.", "configuration"),
        (79, "loss must stay finite, but is nan at step 3", "diverged"),
        (76, "", "no_progress"),
    ],
)
def test_a_failure_has_a_kind(code: int, reason: str, kind: str) -> None:
    assert kind_of(code, reason) == kind
    assert kind in KINDS


def test_the_words_at_the_end_of_a_log_are_causes() -> None:
    killed = "slurmstepd: error: Detected 1 oom_kill event in StepId=4.0. Some of the step tasks have been OOM Killed."
    late = "slurmstepd: error: *** STEP 4.0 ON node1 CANCELLED AT 2026-11-25T10:00:00 DUE TO TIME LIMIT ***"
    found = [first_cause(Evidence(end=step_end(log))) for log in (killed, late, "Finished.")]
    assert [cause and cause.kind for cause in found] == ["oom", "time_limit", None]


def test_the_state_that_slurm_remembers_comes_before_the_log(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "sweep", fake_slurm).write(2)
    for task, state in enumerate(("NODE_FAIL", "FAILED")):
        made.tell(task, BEGAN, told=None)
        made.queued(task, state)
        log = made.directory / "submitit" / f"100_{task}_0_log.out"
        log.parent.mkdir(exist_ok=True)
        log.write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=100.0.\n")
    points = told_by(hpc(fake_slurm, "status", made.directory, "--json"))["points"]
    assert [point["cause"]["kind"] for point in points] == ["node_fail", "oom"]


def test_a_rank_that_missed_a_killed_one_is_not_the_cause(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "sweep", fake_slurm).write(1)
    made.tell(0, BEGAN, Failed(1, 1, "RuntimeError: Connection closed by peer"))
    log = made.directory / "submitit" / "100_0_0_log.out"
    log.parent.mkdir()
    log.write_text("step 3\nslurmstepd: error: Detected 1 oom_kill event in StepId=100.0.\n")
    (point,) = told_by(hpc(fake_slurm, "status", made.directory, "--json"))["points"]
    assert (point["state"], point["cause"]["kind"]) == ("failed", "oom")


def test_a_single_point_shows_its_whole_report(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "sweep", fake_slurm).write(2)
    made.tell(0, BEGAN, Failed(0, 1, "RuntimeError: Connection closed by peer", is_echo=True))
    logs = made.directory / "submitit"
    logs.mkdir()
    (logs / "100_0_0_log.out").write_text(
        "srun: error: node1: task 0: Killed\nhpc: job 100_0 begins again, restart 1.\nstep 3\n"
        "srun: error: node2: task 1: Segmentation fault\n"
        "slurmstepd: error: *** STEP 100.0 ON node1 CANCELLED AT 2026-11-29T00:12:30 ***\n"
        "srun: error: node1: task 0: Exited with exit code 1\nhpc: job 100_0 lost a rank: not requeued.\n"
    )
    (logs / "100_0_1_log.out").write_text("Fatal Python error: Segmentation fault\n")
    shown = hpc(fake_slurm, "status", made.directory, "0").output
    assert shown.endswith(
        "hpc: rank 1 of 2 on node2 failed first:\nit was killed by SIGSEGV, and had no time to say a word\n"
        "hpc: it wrote last:\nFatal Python error: Segmentation fault\n"
        "hpc: rank 0 failed after that: RuntimeError: Connection closed by peer\n"
    )
    assert "failed first" not in hpc(fake_slurm, "status", made.directory).output

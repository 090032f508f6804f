"""What a cluster's configuration means: a text that Slurm 22.05 printed, with one promise broken at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding, exit_code
from hpc.doctor.look import of_slurm
from hpc.slurm.survey import Survey, parsed

CAPTURED = Path(__file__).parent / "captured"
CONFIG, PARTITIONS, NODES = ((CAPTURED / f"{name}.txt").read_text() for name in ("config", "partition", "node"))


def surveyed(*changes: tuple[str, str]) -> Survey:
    """The captured cluster, with texts replaced wherever they stand."""
    texts = []
    for text in (CONFIG, PARTITIONS, NODES):
        for old, new in changes:
            text = text.replace(old, new)
        texts.append(text)
    assert not changes or texts != [CONFIG, PARTITIONS, NODES]
    return parsed(*texts)


def found(survey: Survey, check: str, about: str = "cluster", save_seconds: float | None = 4.0) -> list[Finding]:
    return [each for each in of_slurm(survey, save_seconds) if (each.check, each.about) == (check, about)]


def test_a_usual_cluster_has_no_problem() -> None:
    findings = of_slurm(surveyed(), 4.0)
    assert exit_code(findings) == 0
    assert [each.check for each in findings if each.level != OK] == ["process_tracking"]
    assert {each.about for each in findings} == {"cluster", "partition low", "partition high"}
    assert all(each.text.endswith(".") for each in findings)
    assert all(each.advice.endswith(".") for each in findings if each.advice)


SEND = ("SlurmctldParameters     = (null)", "SlurmctldParameters     = preempt_send_user_signal,rl_enable")
BROKEN = [
    ("version", ("SLURM_VERSION           = 22.05.8", "SLURM_VERSION           = 24.11.1"), OK, "is requeued, and"),
    ("version", ("SLURM_VERSION           = 22.05.8", "SLURM_VERSION           = 25.11.0"), OK, "is held"),
    ("version", ("SLURM_VERSION           = 22.05.8", "SLURM_VERSION           = 19.05.2"), NOTE, "not known to hpc"),
    ("requeue", ("JobRequeue              = 1", "JobRequeue              = 0"), OK, "sent with --requeue"),
    ("requeue_floor", ("cred_expire=120", "cred_expire=20"), PROBLEM, "no sooner than 21 s later"),
    ("requeue_floor", (",cred_expire=120", ""), OK, "no sooner than 121 s later"),
    ("requeue_exit", ("RequeueExit             = (null)", "RequeueExit             = 75,85"), PROBLEM, "Exit has 75"),
    ("requeue_exit", ("RequeueExit             = (null)", "RequeueExit             = 85-99"), OK, "leaves our"),
    ("requeue_exit", ("RequeueExitHold         = (null)", "RequeueExitHold         = 60-70"), PROBLEM, "Hold has 65"),
    ("user_signal", SEND, OK, "the signal of --signal"),
    ("user_signal", ("PreemptExemptTime       = 00:00:00", "PreemptParameters = send_user_signal"), OK, "of --signal"),
    ("submit_plugins", SEND, OK, "rl_enable"),
    ("submit_plugins", ("JobSubmitPlugins        = (null)", "JobSubmitPlugins        = lua"), NOTE, "(lua)"),
    ("kill_wait", ("KillWait                = 30 sec", "KillWait                = 5 sec"), NOTE, "only 5 s"),
    ("process_tracking", ("proctrack/linuxproc", "proctrack/cgroup"), OK, "first process of each task"),
    ("over_time_limit", ("OverTimeLimit           = 0 min", "OverTimeLimit           = UNLIMITED"), OK, "past their"),
    ("over_time_limit", ("OverTimeLimit           = 0 min", "OverTimeLimit           = 10 min"), OK, "=10 min"),
    ("array_size", ("MaxArraySize            = 1001", "MaxArraySize            = 1"), PROBLEM, "no job arrays"),
    ("array_size", ("MaxArraySize            = 1001", "MaxArraySize            = 50"), OK, "below 50"),
    ("job_count", ("MaxJobCount             = 10000", "MaxJobCount             = 20"), NOTE, "20 jobs of everybody"),
    ("accounting", ("AccountingStorageEnforce = none", "AccountingStorageEnforce = limits"), NOTE, "(limits)"),
    ("dead_node", ("SlurmdTimeout           = 300 sec", "SlurmdTimeout           = 60 sec"), OK, "after 60 s"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "change", "level", "words"), BROKEN)
def test_a_setting_is_told_with_what_it_means(check: str, change: tuple[str, str], level: str, words: str) -> None:
    findings = found(surveyed(change), check)
    assert any(each.level == level and words in each.text for each in findings), findings
    assert all(bool(each.advice) or each.level != PROBLEM for each in findings)


MODE = ("PreemptMode=REQUEUE", "PreemptMode=CANCEL")
PREEMPTED = [
    ((), 4.0, [(OK, "preempt: 0 s grace, 30 s until SIGKILL; the last save took 4.0 s: fits.")]),
    ((), None, [(NOTE, "no save is known yet")]),
    ((), 29.0, [(PROBLEM, "the last save took 29.0 s: does not fit")]),
    ((("GraceTime=0", "GraceTime=60"),), 29.0, [(OK, "60 s grace, 30 s until SIGKILL; the last")]),
    ((("GraceTime=0", "GraceTime=00:01:00"),), 29.0, [(OK, "60 s grace")]),
    ((MODE,), 4.0, [(OK, "fits"), (NOTE, "sends a job that goes on")]),
    ((("PreemptMode=REQUEUE", "PreemptMode=GANG,SUSPEND"),), 4.0, [(NOTE, "frozen")]),
    ((("PreemptMode=REQUEUE", "PreemptMode=OFF"),), 4.0, [(OK, "not preempted")]),
    ((("preempt/partition_prio", "preempt/none"),), 4.0, [(OK, "not preempted")]),
    ((("preempt/partition_prio", "preempt/qos"),), 4.0, [(NOTE, "A QOS may preempt otherwise"), (OK, "fits")]),
    ((("PriorityTier=10", "PriorityTier=1"),), 4.0, [(OK, "not preempted")]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "save_seconds", "told"), PREEMPTED)
def test_preemption_is_compared_with_what_a_save_takes(
    changes: tuple[tuple[str, str], ...], save_seconds: float | None, told: list[tuple[str, str]]
) -> None:
    findings = found(surveyed(*changes), "preemption", "partition low", save_seconds)
    assert [each.level for each in findings] == [level for level, _ in told]
    assert all(words in each.text for each, (_, words) in zip(findings, told, strict=True)), findings


PARTITION = [
    ("state", ("State=IDLE", "State=DOWN*"), PROBLEM, "None of its 2 node(s) works."),
    ("state", ("Boards=1 State=IDLE", "Boards=1 State=DRAIN"), PROBLEM, "None of its 2"),
    ("state", (" State=UP", " State=INACTIVE"), PROBLEM, "The partition is INACTIVE"),
    ("gpus", ("Gres=gpu:a100:8", "Gres=gpu:8"), NOTE, "GPUs have no type here (8 on a node)."),
    ("gpus", ("Gres=gpu:a100:8", "Gres=(null)"), OK, "no GPUs"),
    ("gpus", ("gpu:a100:8 NodeAddr=10.77.1.1", "gpu:h100:4 NodeAddr=10.77.1.1"), OK, "8 a100 or 4 h100 on a node."),
    ("time_limit", ("MaxTime=7-00:00:00", "MaxTime=UNLIMITED"), OK, "no time limit"),
    ("time_limit", ("MaxTime=7-00:00:00", "MaxTime=01:30:00"), OK, "at most 1.5 h"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "change", "level", "words"), PARTITION)
def test_a_partition_is_told_with_what_it_means(check: str, change: tuple[str, str], level: str, words: str) -> None:
    (finding,) = found(surveyed(change), check, "partition low")
    assert (finding.level, words in finding.text) == (level, True), finding

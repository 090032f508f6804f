"""What Slurm, the network and the disk do to a run that they do not mean: it goes on by itself, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hpc.run.events import Committed, Resumed, Started, Stopped
from hpc.testing.cluster import SlurmCluster
from hpc.testing.faults import Faults
from hpc.testing.ranks import ranks_of, send, state_of
from tests.faults.conftest import Begin
from tests.faults.stage import EVERY, check_invariants, queued

pytestmark = pytest.mark.slurm
slow = pytest.mark.faults


def test_a_signal_to_one_rank_stops_all_at_one_step_and_a_restarted_controller_stops_nobody(
    begin: Begin, faults: Faults
) -> None:
    """Faults 13 and 25."""
    stage = begin(step_seconds=0.1)
    stage.wait_for_commit()
    faults.signal_rank(stage.id, 1, signal.SIGUSR2)
    stage.wait_for_life(2)
    faults.controller_restart()
    stage.wait_for_end()
    (stopped,) = stage.job.events(Stopped)
    assert [event.step for event in stage.job.events(Resumed)] == [0, stopped.step]
    check_invariants(stage, most_lost=0)


@slow
@pytest.mark.parametrize("grace_seconds", [0, 20])
def test_a_preemption_before_the_first_checkpoint(begin: Begin, faults: Faults, grace_seconds: int) -> None:
    """Faults 3, 10 and 54: asked to stop while it starts, it stops as soon as it can and begins again."""
    stage = begin()
    stage.wait(lambda: bool(ranks_of(stage.cluster, stage.id)), "no rank came")
    faults.preempt(stage.id, grace_seconds)
    stage.wait_for_end()
    check_invariants(stage, most_lost=EVERY)


@pytest.fixture
def configured(slurm: SlurmCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A line at the end of slurm.conf."""
    conf = slurm.directory / "etc" / "slurm.conf"
    before = conf.read_text()
    conf.write_text(f"{before}{request.param}\n")
    slurm.run("scontrol", "reconfigure")
    yield request.param
    conf.write_text(before)
    slurm.run("scontrol", "reconfigure")


@slow
@pytest.mark.parametrize(
    "configured", ["SlurmctldParameters=preempt_send_user_signal", "RequeueExit=75"], indirect=True
)
def test_a_preemption_where_slurm_is_configured_otherwise(begin: Begin, faults: Faults, configured: str) -> None:
    """Faults 2 and 57: the signal of --signal instead of SIGTERM, and a Slurm that requeues our code by itself, too."""
    key, _, value = configured.partition("=")
    assert re.search(rf"^{key} *= {value}$", faults.cluster.run("scontrol", "show", "config").stdout, re.MULTILINE)
    stage = begin()
    stage.wait_for_commit()
    faults.preempt(stage.id, grace_seconds=20)
    stage.wait_for_end()
    assert len(stage.job.events(Stopped)) == 1
    assert len(stage.job.events(Started)) == 2
    assert stage.cluster.job(stage.id)["Restarts"] == "1"
    check_invariants(stage, most_lost=0)


UNUSUAL = {
    "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "TZ": "Asia/Kolkata", "SLURM_TIME_FORMAT": "%A",
    "SQUEUE_FORMAT": "%i", "SQUEUE_STATES": "PENDING", "SQUEUE_PARTITION": "high", "SQUEUE_SORT": "-t",
    "SINFO_FORMAT": "%P", "SINFO_PARTITION": "high", "SINFO_SORT": "-N", "SACCT_FORMAT": "jobid",
    "SCANCEL_INTERACTIVE": "1", "SCANCEL_STATE": "PENDING", "SLURM_EXIT_ERROR": "3", "SRUN_DEBUG": "3",
    "SBATCH_PARTITION": "high", "SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1",
}  # fmt: skip


@slow
def test_a_users_locale_and_variables_change_nothing(begin: Begin, faults: Faults) -> None:
    """Fault 68: they are there when the run is sent, asked for, and cancelled."""
    stage = begin("cluster.partition=low", **UNUSUAL)
    stage.wait_for_commit()
    told = json.loads(stage.typed("status", "--json", **UNUSUAL))
    assert [point["state"] for point in told["points"]] == ["running"]
    faults.preempt(stage.id, grace_seconds=20)
    stage.wait_for_end()
    assert len(stage.job.events(Stopped)) == 1
    check_invariants(stage, most_lost=0)
    other = begin("cluster.partition=low", directory=stage.job.directory.with_name("other"), **UNUSUAL)
    other.wait_for_commit()
    other.typed("cancel", **UNUSUAL)
    other.job.wait_for("CANCELLED")


@slow
def test_six_preemptions_in_a_row(begin: Begin, faults: Faults) -> None:
    """Fault 55."""
    stage = begin()
    for life in range(1, 7):
        stage.wait_for_life(life)
        faults.preempt(stage.id, grace_seconds=20)
        stage.wait_for_life(life + 1)
    stage.wait_for_end()
    check_invariants(stage, most_lost=0)


@slow
def test_a_storm_of_signals_is_one_stop(begin: Begin) -> None:
    """Fault 11: SIGTERM twice at once, then SIGUSR2 and SIGTERM in turns, to every process of the step."""
    stage = begin()
    stage.wait_for_commit()
    ranks = ranks_of(stage.cluster, stage.id).values()
    for number in [signal.SIGTERM, signal.SIGTERM, *[signal.SIGUSR2, signal.SIGTERM] * 25]:
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):  # it has left
                send(pid, number)
    stage.wait_for_end()
    assert len(stage.job.events(Stopped)) == 1
    check_invariants(stage, most_lost=0)


@slow
@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("configured", ["", "RequeueExit=75"], indirect=True)
def test_a_cancellation_in_the_grace_time_of_a_preemption_is_final(begin: Begin, faults: Faults) -> None:
    """Faults 18, 19 and 57: also where Slurm would requeue by itself what ends with our code."""
    stage = begin(step_seconds=5)
    stage.wait(lambda: stage.watch.step >= 2, "it did not train")
    faults.preempt(stage.id, grace_seconds=60)
    stage.cluster.run("scancel", stage.id)
    stage.job.wait_for("CANCELLED")
    stage.wait(lambda: queued(stage) == "", "something is left in the queue")
    time.sleep(2 * stage.cluster.options.cred_expire_seconds)  # a requeued job would be eligible again by now
    assert stage.cluster.job(stage.id)["JobState"] == "CANCELLED"
    assert stage.cluster.job(stage.id)["Restarts"] == "0"


def _slurmd_killed(faults: Faults, node: str) -> Callable[[], None]:
    faults.slurmd_kill(node)
    return lambda: faults.slurmd_start(node)


def _network_cut(faults: Faults, node: str) -> Callable[[], None]:
    faults.network_cut(node)
    return lambda: faults.network_heal(node)


@slow
@pytest.mark.parametrize("lose", [_slurmd_killed, _network_cut])
def test_the_ranks_of_a_node_that_was_given_up_commit_nothing_and_leave(
    begin: Begin, faults: Faults, lose: Callable[[Faults, str], Callable[[], None]]
) -> None:
    """Faults 32 and 34: the controller gives the node up while its ranks live, and the run goes on elsewhere.

    The first life has steps enough for all the time that the second takes to begin; it stops where it would commit.
    """
    stage = begin(step_seconds=2.5)
    stage.wait_for_commit()
    node, old = stage.node, ranks_of(stage.cluster, stage.id)
    assert len(old) == 2
    lost_at = time.time()
    heal = lose(faults, node)
    stage.wait_for_life(2)
    assert stage.job.events(Started)[1].hosts != stage.job.events(Started)[0].hosts
    began = stage.job.events(Resumed)[1]
    stage.wait(lambda: not any(map(state_of, old.values())), "the old ranks are still there")
    late = [event for event in stage.job.events(Committed) if event.time > began.time]
    assert [event for event in late if event.attempt != began.attempt] == []
    stage.wait_for_end()
    heal()
    faults.node_up(node)
    check_invariants(stage, most_lost=10**6, lost_at=lost_at)


@slow
def test_a_network_that_is_cut_for_ten_seconds(begin: Begin, faults: Faults) -> None:
    """Fault 34, short: the ranks of one node do not notice, and neither does Slurm."""
    stage = begin()
    stage.wait_for_commit()
    node = stage.node
    faults.network_cut(node)
    time.sleep(10)
    faults.network_heal(node)
    stage.wait_for_end()
    check_invariants(stage, most_lost=EVERY)


@slow
def test_a_node_that_an_administrator_sets_down(begin: Begin, faults: Faults) -> None:
    """Fault 33: requeued by Slurm, and not held."""
    stage = begin()
    stage.wait_for_commit()
    node = stage.node
    faults.node_down(node)
    stage.wait_for_life(2)
    assert stage.job.events(Started)[1].hosts != (node,)
    stage.wait_for_end()
    check_invariants(stage, most_lost=EVERY)


@slow
def test_a_restarted_slurmd_a_drained_node_and_a_suspended_job_stop_nobody(
    begin: Begin, faults: Faults, slurm: SlurmCluster
) -> None:
    """Faults 26, 35, 36 and 58, one after the other in one life."""
    stage = begin()
    stage.wait_for_commit()
    faults.slurmd_kill(stage.node)
    faults.slurmd_start(stage.node)
    slurm.run("scontrol", "update", f"nodename={stage.node}", "state=drain", "reason=test")
    slurm.daemon("slurmdbd").kill()
    slurm.run("scontrol", "suspend", stage.id)
    time.sleep(6)
    slurm.run("scontrol", "resume", stage.id)
    slurm.daemon("slurmdbd").start_again()
    stage.wait_for_end()
    assert len(stage.job.events(Started)) == 1
    check_invariants(stage, most_lost=0)


@slow
def test_a_run_that_has_finished_is_requeued_and_ends_at_once(begin: Begin, slurm: SlurmCluster) -> None:
    """Fault 56."""
    stage = begin(step_seconds=0.0)
    stage.wait_for_end()
    value = (stage.job.point() / "finished.json").read_bytes()
    slurm.run("scontrol", "requeue", stage.id)
    stage.wait(lambda: stage.cluster.job(stage.id)["JobState"] != "COMPLETED", "it was not requeued")
    stage.job.wait_for("COMPLETED")
    assert (stage.job.point() / "finished.json").read_bytes() == value
    assert len(stage.job.events(Committed)) == len({event.step for event in stage.job.events(Committed)})


@slow
def test_a_disk_that_is_full_when_a_run_saves_and_free_when_it_is_sent_again(begin: Begin, faults: Faults) -> None:
    """Fault 37, on the cluster: the run ends with 74 and its older checkpoint, and goes on when it is sent again."""
    small = faults.cluster.small_disk / "run"
    stage = begin(directory=small)
    stage.wait_for_commit()
    faults.full_disk()
    stage.job.wait_for("FAILED")
    assert stage.cluster.job(stage.id)["ExitCode"] == "74:0"
    faults.free_disk()
    stage.typed("retry", "--json")
    last = (small / "submissions.jsonl").read_text().splitlines()[-1]
    again = replace(stage, job=replace(stage.job, job_id=json.loads(last)["job"]))
    again.wait_for_end()
    check_invariants(again, most_lost=10**6)

"""Does the cluster that the other tests rely on behave like a real one, and vanish when it is stopped?"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpc.testing.cluster import ClusterOptions, CommandFailedError, SlurmCluster
from hpc.testing.daemons import wait_until
from hpc.testing.network import Network
from hpc.testing.requirements import reason_no_cluster_starts_here, skip_or_fail_without_slurm

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = ClusterOptions(nodes=1, gpus_per_node=0, accounting=False)

TALK_TO_THE_OTHER_NODE = """
import os, socket, time
if os.environ["SLURM_PROCID"] == "0":
    with socket.create_server(("", 7777)) as server:
        server.settimeout(20)
        connection, peer = server.accept()
        with connection:
            print(socket.gethostname(), "heard", connection.recv(99).decode())
else:
    for attempt in range(100):
        try:
            with socket.create_connection((os.environ["LISTENER"], 7777), timeout=5) as connection:
                connection.send(socket.gethostname().encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
"""


def submit(cluster: SlurmCluster, *arguments: str) -> str:
    return cluster.run("sbatch", "--parsable", *arguments).stdout.strip()


def printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def settled_states(cluster: SlurmCluster, job: str) -> list[tuple[str, str, str]]:
    """JobID, State and ExitCode of all records, once accounting has caught up with the end of the job."""
    wait_until(
        lambda: {record["State"] for record in cluster.records(job)}.isdisjoint({"PENDING", "RUNNING"}),
        lambda: f"{cluster.records(job)}",
        timeout_seconds=30,
    )
    return [(record["JobID"], record["State"], record["ExitCode"]) for record in cluster.records(job)]


def processes_of(cluster: SlurmCluster) -> list[int]:
    """Every daemon, step and job of a cluster has its slurm.conf in the environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
        except OSError:  # it has ended
            continue
        if f"SLURM_CONF={cluster.directory}/".encode() in environment:
            found.append(int(entry.name))
    return found


def traces(cluster: SlurmCluster) -> dict[str, bool]:
    """What of a cluster is on the machine: by its name, which namespaces and the interface carry, and its folder."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "namespaces": cluster.name in printed("ip", "netns", "list"),
        "interfaces": cluster.name in printed("ip", "-details", "link", "show"),
        "mounts": cluster.name in mounts or str(cluster.directory) in mounts,
        "processes": bool(processes_of(cluster)),
    }


UP = {"namespaces": True, "interfaces": True, "mounts": True, "processes": True}
GONE = dict.fromkeys(UP, False)


@pytest.mark.slurm
def test_four_nodes_are_idle_with_eight_gpus_each(cluster: SlurmCluster) -> None:
    lines = cluster.run("sinfo", "--noheader", "--Node", "--partition=high", "--format=%N %T %G").stdout
    assert lines.split("\n")[:-1] == [f"node{number} idle gpu:a100:8" for number in (1, 2, 3, 4)]


@pytest.mark.slurm
def test_a_step_over_two_nodes_sees_two_host_names_and_its_two_gpus(cluster: SlurmCluster) -> None:
    shape = ("-N2", "--ntasks-per-node=2", "--gres=gpu:a100:2")
    step = cluster.run("srun", *shape, "sh", "-c", 'echo "$(hostname) $CUDA_VISIBLE_DEVICES"')
    assert sorted(step.stdout.splitlines()) == ["node1 0,1", "node1 0,1", "node2 0,1", "node2 0,1"]


@pytest.mark.slurm
def test_tasks_reach_the_other_node_by_its_name(cluster: SlurmCluster) -> None:
    talk = ("python3", "-c", TALK_TO_THE_OTHER_NODE)
    step = cluster.run("srun", "-N2", "-wnode[2-3]", *talk, env={"LISTENER": "node2"}, timeout=60)
    assert step.stdout == "node2 heard node3\n"


@pytest.mark.slurm
def test_a_job_may_ask_the_controller_about_itself(cluster: SlurmCluster, tmp_path: Path) -> None:
    output = tmp_path / "output"
    job = submit(cluster, f"--output={output}", "--wrap=scontrol show job --oneliner $SLURM_JOB_ID")
    cluster.wait_for(job, "COMPLETED", timeout_seconds=60)
    assert f"JobId={job} " in output.read_text()
    assert " JobState=RUNNING " in output.read_text()


@pytest.mark.slurm
def test_accounting_knows_a_completed_job_and_its_steps(cluster: SlurmCluster) -> None:
    job = submit(cluster, "--output=/dev/null", "--wrap=srun true")
    cluster.wait_for(job, "COMPLETED", timeout_seconds=60)
    assert settled_states(cluster, job) == [
        (job, "COMPLETED", "0:0"),
        (f"{job}.batch", "COMPLETED", "0:0"),
        (f"{job}.0", "COMPLETED", "0:0"),
    ]


@pytest.mark.slurm
def test_a_preempted_job_is_requeued_and_runs_again(cluster: SlurmCluster) -> None:
    script = '--wrap=[ "$SLURM_RESTART_COUNT" = 1 ] || exec srun sleep 300'
    low = submit(cluster, "--output=/dev/null", "-N4", "--exclusive", script)
    cluster.wait_for(low, "RUNNING", timeout_seconds=60)
    high = submit(cluster, "--output=/dev/null", "--partition=high", "-N1", "--exclusive", "--wrap=true")
    cluster.wait_for(high, "COMPLETED", timeout_seconds=60)
    cluster.wait_for(low, "COMPLETED", timeout_seconds=90)
    assert cluster.job(low)["Restarts"] == "1"
    lives = [state for job, state, _ in settled_states(cluster, low) if job == low]
    assert lives == ["PREEMPTED", "COMPLETED"]


@pytest.mark.slurm
def test_an_array_of_three_completes(cluster: SlurmCluster, tmp_path: Path) -> None:
    array = submit(cluster, "--array=0-2", f"--output={tmp_path}/%a", "--wrap=echo $SLURM_ARRAY_TASK_ID")
    cluster.wait_for(array, "COMPLETED", timeout_seconds=60)
    assert [(tmp_path / task).read_text() for task in ("0", "1", "2")] == ["0\n", "1\n", "2\n"]
    assert cluster.job(f"{array}_1")["ArrayTaskId"] == "1"
    with pytest.raises(ValueError, match=f"Job {array} is an array of 3; name one task"):
        cluster.job(array)


@pytest.mark.slurm
def test_no_process_remains_on_a_node_once_its_job_was_cancelled(cluster: SlurmCluster) -> None:
    job = submit(cluster, "--output=/dev/null", "-wnode3", "--wrap=exec sleep 300")
    cluster.wait_for(job, "RUNNING", timeout_seconds=60)
    wait_until(
        lambda: "sleep 300" in [process.command for process in cluster.processes_on("node3")],
        lambda: f"{cluster.processes_on('node3')}",
        timeout_seconds=30,
    )
    cluster.run("scancel", job)
    cluster.wait_for(job, "CANCELLED", timeout_seconds=60)
    wait_until(
        lambda: cluster.processes_on("node3") == [], lambda: f"{cluster.processes_on('node3')}", timeout_seconds=30
    )


@pytest.mark.slurm
def test_the_grace_of_a_partition_can_be_changed(cluster: SlurmCluster) -> None:
    cluster.set_grace("low", 7)
    assert " GraceTime=7 " in cluster.run("scontrol", "show", "partition", "low", "--oneliner").stdout
    cluster.set_grace("low", 0)
    assert " GraceTime=0 " in cluster.run("scontrol", "show", "partition", "low", "--oneliner").stdout


@pytest.mark.slurm
def test_waiting_in_vain_shows_the_job_and_what_it_printed(cluster: SlurmCluster, tmp_path: Path) -> None:
    job = submit(cluster, f"--output={tmp_path}/output", "--wrap=echo so far so good; exec sleep 300")
    cluster.wait_for(job, "RUNNING", timeout_seconds=60)
    with pytest.raises(TimeoutError, match=r"(?s)is RUNNING, not FAILED.*so far so good.*slurmctld's log"):
        cluster.wait_for(job, "FAILED", timeout_seconds=2)
    cluster.run("scancel", job)


@pytest.mark.slurm
def test_a_failed_command_says_what_it_printed(cluster: SlurmCluster) -> None:
    with pytest.raises(CommandFailedError, match="invalid partition"):
        submit(cluster, "--partition=nowhere", "--wrap=true")


def test_variables_of_an_outer_job_do_not_reach_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "PMI_RANK", "HARMLESS"):
        monkeypatch.setenv(name, "1")
    directory = tmp_path_factory.mktemp("c")
    environment = SlurmCluster(directory).environment
    leaked = {name: value for name, value in environment.items() if name.startswith(("SLURM", "SBATCH", "PMI"))}
    assert leaked == {"SLURM_CONF": f"{directory}/etc/slurm.conf"}
    assert environment["HARMLESS"] == "1"


@pytest.mark.slurm
def test_a_second_cluster_keeps_apart_and_leaves_nothing(
    cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with SlurmCluster(tmp_path_factory.mktemp("second"), SMALL) as second:
        job = submit(second, "--output=/dev/null", "--job-name=only-here", "--wrap=setsid sleep 300 & sleep 300")
        second.wait_for(job, "RUNNING", timeout_seconds=60)
        wait_until(
            lambda: [process.command for process in second.processes_on("node1")].count("sleep 300") == 2,
            lambda: f"{second.processes_on('node1')}",
            timeout_seconds=30,
        )
        assert "only-here" not in cluster.run("squeue", "--noheader", "--format=%j").stdout
        assert cluster.processes_on("node1") == []
        assert traces(second) == UP
    assert traces(second) == GONE
    assert traces(cluster) == UP


@pytest.mark.slurm
def test_a_cluster_is_configured_as_its_options_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    options = ClusterOptions(
        nodes=2, gpus_per_node=2, gpu_type="h100", accounting=False, max_array_size=11, extra_conf=("KillWait=7",)
    )
    with SlurmCluster(tmp_path_factory.mktemp("other"), options) as cluster:
        lines = cluster.run("scontrol", "show", "config").stdout.splitlines()
        config = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        assert (config["MaxArraySize"], config["KillWait"]) == ("11", "7 sec")
        nodes = cluster.run("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %G").stdout
        assert nodes == "node1 gpu:h100:2\nnode2 gpu:h100:2\n"
        with pytest.raises(CommandFailedError, match="accounting storage is disabled"):
            cluster.records(1)


@pytest.mark.slurm
def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    broken = SlurmCluster(
        tmp_path_factory.mktemp("broken"), ClusterOptions(nodes=1, accounting=False, extra_conf=("Nonsense=1",))
    )
    with pytest.raises(RuntimeError, match=r"(?s)slurmctld ended with 1 while starting.*Nonsense"):
        broken.start()
    assert traces(broken) == GONE


@pytest.mark.slurm
def test_two_networks_never_share_an_address() -> None:
    networks = [Network("ctl", ("node1",)) for _ in range(3)]
    try:
        for network in networks:
            network.open()
        assert len({address for network in networks for address in network.addresses.values()}) == 6
    finally:
        for network in networks:
            network.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "nodes is 0; it may be 1 to 200"),
        ({"nodes": 201}, "nodes is 201; it may be 1 to 200"),
        ({"cred_expire_seconds": 9}, r"cred_expire_seconds is 9; .* kill_wait_seconds \+ 5 = 10"),
        ({"kill_wait_seconds": 6}, r"cred_expire_seconds is 10; .* kill_wait_seconds \+ 5 = 11"),
    ],
)
def test_options_that_cannot_work_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterOptions(**options)


def test_a_folder_whose_path_leaves_no_room_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long for sockets; it may have 60 bytes"):
        SlurmCluster(tmp_path / ("x" * 60))


def test_a_machine_without_the_packages_is_told_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # Who is not root is told that first.
    assert str(reason_no_cluster_starts_here()).startswith("A real Slurm needs ")


@pytest.mark.parametrize("environ", [{}, {"CI": ""}, {"CI": "false"}])
def test_without_slurm_a_test_is_skipped_by_name(environ: Mapping[str, str]) -> None:
    with pytest.raises(pytest.skip.Exception, match="test_x: no reason"):
        skip_or_fail_without_slurm("test_x", "no reason", environ)


def test_without_slurm_a_test_fails_in_continuous_integration() -> None:
    with pytest.raises(pytest.fail.Exception, match="test_x: no reason"):
        skip_or_fail_without_slurm("test_x", "no reason", {"CI": "true"})


def test_with_slurm_a_test_runs_everywhere() -> None:
    skip_or_fail_without_slurm("test_x", None, {"CI": "true"})

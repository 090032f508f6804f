"""The queue of this machine, with real processes: what runs at once, on which GPU, and what a stop leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpc.run.queue import CANCELLED, FAILED, FINISHED, LOST, RUNNING, STOPPED, WAITING, QueueFiles
from tests.conftest import Run
from tests.support.local_sweep import LocalSweep, is_alive, wait_for

NewSweep = Callable[..., LocalSweep]


@pytest.fixture
def new_sweep(tmp_path: Path) -> Iterator[NewSweep]:
    """Sweeps whose queues know each other's leases; nothing of them stays."""
    sweeps: list[LocalSweep] = []

    def new(name: str = "sweep", **environ: str) -> LocalSweep:
        leases = {"HPC_LEASES": str(tmp_path / "leases"), "CUDA_VISIBLE_DEVICES": ""}
        sweeps.append(LocalSweep(tmp_path / name, tmp_path / f"{name}.trace", {**leases, **environ}))
        return sweeps[-1]

    yield new
    for sweep in sweeps:
        sweep.clean_up()


def most_at_once(sweep: LocalSweep) -> int:
    """How many points the record has under way at once, at most."""
    running, most = set(), 0
    for text in QueueFiles(sweep.directory).record.read_text().splitlines():
        line = json.loads(text)
        running |= {line["point"]} if line["event"] == "started" else set()
        running -= {line["point"]} if line["event"] == "ended" else set()
        most = max(most, len(running))
    return most


def test_points_run_side_by_side_and_a_failure_keeps_nobody_from_running(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    sweep.start(5, {"max_parallel": 2}, leaves_child=True)
    children = [sweep.told(number)["child"] for number in (0, 1)]
    assert sweep.states == [RUNNING, RUNNING, WAITING, WAITING, WAITING]
    sweep.order(1, code=3)
    child = sweep.told(2)["child"]
    sweep.order(2, code=4)
    for number in (0, 3, 4):
        sweep.order(number)
    code, output = sweep.end()
    assert code == 3, output
    assert sweep.states == [FINISHED, FAILED, FAILED, FINISHED, FINISHED]
    assert [point.code for point in sweep.queue.points.values()] == [0, 3, 4, 0, 0]
    assert most_at_once(sweep) == 2
    assert "[0] point 0 is here" in output
    assert "Point 1 ended with exit code 3; its log: " in output
    assert not any(map(is_alive, [*children, child]))
    sweep.start(5, {"max_parallel": 3}, leaves_child=True)
    for number in (1, 2):
        assert sweep.told(number, attempt=2)["threads"] == "1"
        sweep.order(number, attempt=2)
    code, output = sweep.end()
    assert (code, sweep.states) == (0, [FINISHED] * 5)
    assert "Finished already: 3 of 5 points." in output


def test_two_sweeps_never_share_a_gpu_and_a_killed_queue_gives_its_own_back(new_sweep: NewSweep) -> None:
    gpus = {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "PATH": "/usr/bin:/bin"}
    first, second = new_sweep("first", **gpus), new_sweep("second", **gpus)
    hardware = {"gpus_per_node": 1}
    first.start(3, hardware=hardware)
    assert {first.told(number)["gpus"] for number in (0, 1)} == {"GPU-a", "GPU-b"}
    assert first.states == [RUNNING, RUNNING, WAITING]
    assert {*first.queue.points["0"].gpus, *first.queue.points["1"].gpus} == {"GPU-a", "GPU-b"}
    process = second.start(1, hardware=hardware)
    assert process.stdout is not None
    assert process.stdout.readline() == "Point 0 waits for GPUs, which another sweep of yours has.\n"
    first.order(0)
    freed = first.told(0)["gpus"]
    wait_for(lambda: (first.trace / "2.1.json").exists() or (second.trace / "0.1.json").exists(), "a GPU is taken")
    started = first if (first.trace / "2.1.json").exists() else second
    assert started.told(2 if started is first else 0)["gpus"] == freed
    pids = [first.told(1)["pid"]]
    first.processes[-1].kill()
    second.told(0)
    wait_for(lambda: not any(map(is_alive, pids)), "the ranks of the killed queue have ended")
    second.order(0)
    assert second.end()[0] == 0
    assert first.states[1] == LOST


def test_one_interrupt_lets_all_save_and_the_same_command_goes_on(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    process = sweep.start(3, {"max_parallel": 2})
    for number in (0, 1):
        sweep.told(number)
    process.send_signal(signal.SIGINT)
    code, output = sweep.end()
    assert code == 75, output
    assert sweep.states == [STOPPED] * 3
    assert [point.code for point in sweep.queue.points.values()] == [75, 75, None]
    assert "Stopped; the same command goes on from here." in output
    assert "Traceback" not in output
    for number, attempt in ((0, 2), (1, 2), (2, 1)):
        sweep.order(number, attempt)
    sweep.start(3, {"max_parallel": 2})
    assert (sweep.end()[0], sweep.states) == (0, [FINISHED] * 3)


def test_a_second_interrupt_ends_all_at_once(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    process = sweep.start(2, {"max_parallel": 2}, deaf=True, leaves_child=True)
    told = [sweep.told(number) for number in (0, 1)]
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    while not process.stdout.readline().startswith("hpc: Stopping: 2 point(s) save and end"):
        pass
    assert all(is_alive(each["pid"]) for each in told)
    process.send_signal(signal.SIGINT)
    assert sweep.end()[0] == 130
    assert not any(is_alive(each[name]) for each in told for name in ("pid", "child"))


def test_a_point_that_saved_goes_on(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    sweep.start(1)
    os.kill(sweep.told(0)["pid"], signal.SIGTERM)
    sweep.order(0, attempt=2)
    code, output = sweep.end()
    assert (code, sweep.states, sweep.queue.points["0"].attempt) == (0, [FINISHED], 2)
    assert "Point 0 saved its state, and goes on in another attempt." in output


def test_the_time_limit_is_that_of_an_attempt(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    sweep.trace.mkdir()
    sweep.order(0, attempt=2)
    sweep.start(1, hardware={"time_limit_minutes": 1}, cluster={"grace_seconds": 58})
    sweep.told(0)  # nobody tells it to end but the clock, be it while it still starts
    assert (sweep.end()[0], sweep.states) == (0, [FINISHED])


def test_a_killed_queue_takes_its_ranks_along_and_the_same_command_goes_on(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    process = sweep.start(2, {"max_parallel": 1}, leaves_child=True)
    told = sweep.told(0)
    process.kill()
    wait_for(lambda: not is_alive(told["pid"]) and not is_alive(told["child"]), "the rank has ended")
    sweep.order(0, attempt=2)
    sweep.order(1)
    sweep.start(2, {"max_parallel": 1}, leaves_child=True)
    assert (sweep.end()[0], sweep.states) == (0, [FINISHED] * 2)


def test_a_killed_controller_takes_its_ranks_along_and_that_is_a_crash(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    sweep.start(1, deaf=True)
    pid = sweep.told(0)["pid"]
    controller = sweep.queue.points["0"].process
    assert controller is not None
    os.kill(controller.pid, signal.SIGKILL)
    sweep.order(0, attempt=2)
    code, output = sweep.end()
    assert (code, sweep.states) == (0, [FINISHED])
    assert "Point 0 lost a rank to a signal, and goes on in another attempt." in output
    wait_for(lambda: not is_alive(pid), "the rank has ended")


def test_a_point_that_crashes_again_and_again_ends_unless_it_was_told_to_begin_anew(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    for first in (1, 3):
        sweep.start(1, {"max_crashes": 2})
        for attempt in (first, first + 1):
            os.kill(sweep.told(0, attempt)["pid"], signal.SIGKILL)
        code, output = sweep.end()
        assert (code, sweep.states) == (76, [FAILED]), output
        assert "Point 0 ended with exit code 76, and launch.max_crashes=2 is reached without a new" in output


def test_an_exception_is_retried_where_that_was_asked_for(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    sweep.start(1, {"retry_exceptions": True})
    sweep.order(0, code=3)
    sweep.order(0, attempt=2)
    code, output = sweep.end()
    assert (code, sweep.states) == (0, [FINISHED])
    assert "Point 0 ended with an exit code of its program's own, and goes on in another attempt." in output


def test_a_detached_queue_needs_no_terminal_and_is_the_only_one(new_sweep: NewSweep) -> None:
    sweep = new_sweep()
    process = sweep.start(2, {"max_parallel": 1, "detach": True})
    code, output = sweep.end()
    assert code == 0, output
    assert f"Follow:    hpc status {sweep.directory}" in output
    queue = sweep.queue
    assert queue.is_running
    assert os.getsid(queue.process.pid) == queue.process.pid != os.getsid(0)
    assert process.pid != queue.process.pid
    pid = sweep.told(0)["pid"]
    os.kill(queue.process.pid, signal.SIGHUP)
    sweep.start(2, {"max_parallel": 2})
    code, output = sweep.end()
    assert code == 78
    assert f"process {queue.process.pid} on {queue.process.host} has run the points of {sweep.directory}" in output
    assert output.count("\n") == 1
    assert is_alive(pid)
    for number in (0, 1):
        sweep.order(number)
    wait_for(lambda: sweep.queue.code == 0, "the queue has ended")
    assert sweep.states == [FINISHED] * 2
    assert "Point 1 finished, 2 of 2." in QueueFiles(sweep.directory).output.read_text()
    wait_for(lambda: not is_alive(queue.process.pid), "its process has ended")


def test_points_are_shown_and_cancelled_by_name(new_sweep: NewSweep, run_hpc: Run) -> None:
    sweep = new_sweep()
    sweep.start(3, {"max_parallel": 1})
    sweep.told(0)
    shown = json.loads(run_hpc("status", str(sweep.directory), "--json").stdout)
    assert [point["state"] for point in shown["points"]] == ["running", "pending", "pending"]
    assert "point 0 is here" in run_hpc("logs", str(sweep.directory), "0").stdout
    cancelled = run_hpc("cancel", str(sweep.directory), "0", "1")
    assert cancelled.returncode == 0, cancelled.stderr
    sweep.told(2)
    sweep.order(2)
    assert sweep.end()[0] == 75
    assert sweep.states == [CANCELLED, CANCELLED, FINISHED]
    assert not (sweep.trace / "1.1.json").exists()
    shown = json.loads(run_hpc("status", str(sweep.directory), "--json").stdout)
    assert [point["state"] for point in shown["points"]] == ["cancelled", "cancelled", "finished"]
    for number, attempt in ((0, 2), (1, 1)):
        sweep.order(number, attempt)
    sweep.start(3, {"max_parallel": 1})
    assert (sweep.end()[0], sweep.states) == (0, [FINISHED] * 3)


def test_what_does_not_fit_is_refused_before_anything_is_written(new_sweep: NewSweep) -> None:
    sweep = new_sweep(CUDA_VISIBLE_DEVICES="GPU-a", PATH="/usr/bin:/bin")
    sweep.start(1, hardware={"gpus_per_node": 2, "name": "2xA100"})
    code, output = sweep.end()
    assert code == 78
    assert "hardware=2xA100 must have 2 GPU(s) to run on this machine, but " in output
    assert not sweep.directory.exists()
    sweep.start(1, cluster={"environment": {"CUDA_VISIBLE_DEVICES": "0"}})
    code, output = sweep.end()
    assert code == 78
    assert "cluster.environment must not have CUDA_VISIBLE_DEVICES" in output
    assert not sweep.directory.exists()


def test_a_queue_leaves_the_terminal_to_the_command_alone(new_sweep: NewSweep) -> None:
    """Ctrl-C goes to all processes of a terminal's foreground group: controllers and ranks are in none of it."""
    sweep = new_sweep()
    process = sweep.start(1)
    pid = sweep.told(0)["pid"]
    family = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
    assert pid in family
    assert all(os.getpgid(each) != os.getpgid(process.pid) for each in family)
    sweep.order(0)
    assert sweep.end()[0] == 0

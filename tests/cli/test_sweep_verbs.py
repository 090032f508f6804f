"""The verbs about sweeps, on sweeps in every state, with a squeue that says what it is told to."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.attempt.cause import KINDS
from hpc.run.events import Ended, Failed
from hpc.run.index import index_path, record_sweep
from hpc.run.journal import Journal
from hpc.run.processes import this_process
from hpc.run.submissions import LOCAL, Submission, newest_jobs, record_submission
from hpc.status.standing import STATES as STATE_NAMES
from tests.conftest import ROOT, FakeSlurm
from tests.support.sweeps import BEGAN, Made, hpc, in_every_state, told_by

STATES = ["finished", "running", "saving", "pending", "stopped", "failed", "failed", "lost", "cancelled", "unsubmitted"]
FIELDS = {
    *("point", "index", "overrides", "state", "step", "total_steps", "loss", "metrics", "per_second", "unit"),
    *("seconds_left", "told_at", "attempt", "attempt_id", "cause", "last_end", "slow_rank", "job", "scheduler"),
    *("slurm_state", "reason", "reason_text", "nodes", "starts_at", "allocation_seconds_left", "directory"),
}


@pytest.fixture
def made(tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Where nothing lies below runs/, as it does in a clone in which somebody has trained."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return in_every_state(tmp_path / "sweep", fake_slurm)


def squeue_fails(slurm: FakeSlurm, words: str) -> None:
    (slurm.directory / "bin" / "squeue").write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")


def test_status_tells_every_state_in_one_squeue(made: Made, fake_slurm: FakeSlurm) -> None:
    told = told_by(hpc(fake_slurm, "status", made.directory, "--json"))
    points = told["points"]
    assert [point["state"] for point in points] == STATES
    assert all(set(point) == FIELDS for point in points)
    assert told["counts"] == {state: STATES.count(state) for state in dict.fromkeys(STATES)}
    assert told["differing"] == ["optimizer.lr", "seed"]
    assert [call.split()[0] for call in fake_slurm.calls] == ["squeue"]
    running, pending = points[1], points[3]
    assert (running["attempt"], running["nodes"], running["step"], running["total_steps"]) == (
        2,
        ["node1", "node2"],
        50,
        100,
    )
    assert (running["loss"], running["per_second"], running["seconds_left"]) == (2.5, 1234.5, 720.0)
    assert (running["allocation_seconds_left"], running["job"]) == (600.0, "100_1")
    assert (pending["reason"], pending["nodes"], pending["step"]) == ("Priority", [], None)
    assert pending["reason_text"] == "Jobs with a higher priority are ahead of it in the queue."
    slow = {name: running["slow_rank"][name] for name in ("rank", "host", "factor")}
    assert slow == {"rank": 3, "host": "node2", "factor": 2.4}
    assert points[4]["slow_rank"] is None
    cause = {name: points[5]["cause"][name] for name in ("kind", "text", "rank", "code", "told_by")}
    assert cause == {"kind": "crash", "text": "ValueError: no such split", "rank": 1, "code": 1, "told_by": "rank"}
    assert [points[n]["cause"]["kind"] for n in (6, 7)] == ["oom", "unknown"]


def test_status_tells_why_a_point_waits_for_another_life(made: Made, fake_slurm: FakeSlurm) -> None:
    made.tell(3, BEGAN, Failed(1, 137, "gone"), Ended(137, "rank_died", "again", "crash", 0), attempt="linux.203-0.0")
    point = told_by(hpc(fake_slurm, "status", made.directory, "3", "--json"))["points"][0]
    end = point["last_end"]
    assert (point["state"], end["verdict"], end["follows"], end["code"]) == ("pending", "rank_died", "again", 137)
    shown = hpc(fake_slurm, "status", made.directory).stdout
    assert "rank_died, Priority" in shown
    assert "The life before this one lost a rank to a signal; it begins again by itself (point 3)." in shown
    made.tell(3, Ended(0, "cancelled", "nothing", "nothing", 0), attempt="linux.203-1.0")
    assert "by itself" not in hpc(fake_slurm, "status", made.directory).stdout


def test_the_page_has_every_field_state_and_cause() -> None:
    page = (ROOT / "docs" / "status.md").read_text()
    missing = [name for name in (*FIELDS, *STATE_NAMES, *KINDS) if f"`{name}`" not in page]
    assert missing == []


@pytest.mark.parametrize("width", [80, 120, 160])
def test_the_table_is_no_wider_than_the_terminal(made: Made, fake_slurm: FakeSlurm, width: int) -> None:
    done = hpc(fake_slurm, "status", made.directory, environ={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines[2:])) <= width
    (header,) = (line for line in lines if line.startswith("point"))
    assert "lr" in header.split()
    assert "hardware" not in header  # it is the same for all
    assert lines[1].startswith("10 points: 1 finished, 1 running, 1 saving, 1 pending")
    assert "crash" in done.stdout


def test_a_large_sweep_is_summed_up(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "sweep", fake_slurm).write(300)
    made.tell(299, BEGAN, Failed(0, 1, "ValueError: it is the last one"))
    for task in range(299):
        made.queued(task, "PENDING", "JobArrayTaskLimit")
    short, long = (hpc(fake_slurm, "status", made.directory, *more).stdout.splitlines() for more in ((), ("--all",)))
    assert len(short) < 40
    assert any(line.startswith("299 ") for line in short)
    assert "289 more points: --all shows them." in short
    assert len(long) > 300


def test_without_slurm_the_files_tell(made: Made, fake_slurm: FakeSlurm) -> None:
    (fake_slurm.directory / "bin" / "squeue").write_text(
        "#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
    )
    told = told_by(hpc(fake_slurm, "status", made.directory, "--json"))
    assert told["problem"] == "Unable to contact slurm controller"
    states = [point["state"] for point in told["points"]]
    assert " ".join(states) == ("finished running running pending stopped failed running running pending unsubmitted")
    shown = hpc(fake_slurm, "status", made.directory).stdout.splitlines()
    assert shown[2] == "Slurm does not answer, so this is what the files tell: Unable to contact slurm controller"
    refused = hpc(fake_slurm, "resume", made.directory)
    assert refused.exit_code == 78
    assert "before points are submitted again" in refused.stderr
    assert fake_slurm.scripts == []


def test_jobs_that_the_controller_has_forgotten_are_gone(made: Made, fake_slurm: FakeSlurm) -> None:
    (fake_slurm.directory / "bin" / "squeue").write_text(
        "#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n"
    )
    told = told_by(hpc(fake_slurm, "status", made.directory, "--json"))
    assert told["problem"] == ""
    assert [point["state"] for point in told["points"]][1:4] == ["lost", "lost", "lost"]


def test_a_damaged_point_does_not_hide_the_others(made: Made, fake_slurm: FakeSlurm) -> None:
    for name, content in (("5/journal", None), ("1/progress.json", "{"), ("0/metrics.jsonl", "\xff[1]\n")):
        path = made.directory / name
        if content is None:
            path.rename(path.with_name("gone"))
            path.write_text("a file")
        else:
            path.write_text(content, encoding="latin-1")
    os.mkfifo(made.directory / "4" / "journal" / "pipe.jsonl")
    told = told_by(hpc(fake_slurm, "status", made.directory, "--json"))
    states = [point["state"] for point in told["points"]]
    assert " ".join(states) == ("finished running saving pending damaged damaged failed lost cancelled unsubmitted")
    assert "5" in told["points"][5]["directory"]
    assert hpc(fake_slurm, "status", made.directory).exit_code == 0
    assert hpc(fake_slurm, "results", made.directory, "--best", "loss:min").exit_code == 0


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (("3",), ["3"]), (("lr=3e-4",), ["1", "3", "5", "7", "9"]), (("lr=0.0003", "seed=1"), ["3"]),
        (("optimizer.lr=1e-3,seed=0",), ["0"]), (("100_4",), ["4"]), (("2", "lr=.001,seed=4"), ["2", "8"]),
        (("100",), [str(n) for n in range(9)]),
    ],
)  # fmt: skip
def test_points_are_found_by_index_override_and_job(
    made: Made, fake_slurm: FakeSlurm, words: tuple[str, ...], chosen: list[str]
) -> None:
    told = told_by(hpc(fake_slurm, "status", made.directory, *words, "--json"))
    assert [point["point"] for point in told["points"]] == chosen


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("10",), "10 must be a point of the sweep, which has 10"),
        (("lr=7",), "lr=7 must fit a point"),
        (("momentum=1",), "momentum must be an override of the sweep"),
        (("nosuch",), "nosuch must be a point of the sweep"),
    ],
)
def test_what_names_no_point_is_refused(
    made: Made, fake_slurm: FakeSlurm, words: tuple[str, ...], sentence: str
) -> None:
    done = hpc(fake_slurm, "status", made.directory, *words)
    assert done.exit_code == 78
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_is_no_sweep_is_refused(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    done = hpc(fake_slurm, "status", tmp_path / "nowhere")
    assert (done.exit_code, done.stderr.count("\n")) == (78, 1)
    (tmp_path / "sweep.json").write_text("{")
    (tmp_path / "points.jsonl").write_text("")
    damaged = hpc(fake_slurm, "status", tmp_path)
    assert (damaged.exit_code, damaged.stderr.count("\n")) == (65, 1)
    assert "is damaged" in damaged.stderr


def test_sweeps_are_known_from_anywhere(made: Made, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    none = hpc(fake_slurm, "status", environ=environ)
    assert (none.exit_code, "none was submitted" in none.stderr) == (78, True)
    record_sweep(made.directory, environ)
    record_sweep(tmp_path / "gone", environ)
    assert index_path(environ).stat().st_mode & 0o777 == 0o600
    listed = told_by(hpc(fake_slurm, "ls", "--json", environ=environ))["sweeps"]
    assert [(each["sweep"], each["points"], each["finished"]) for each in listed] == [(str(made.directory), 10, 1)]
    for words in ((), ("sweep",), ("100_4",)):
        told = told_by(hpc(fake_slurm, "status", *words, "--json", environ=environ))
        assert told["sweep"] == str(made.directory)
    inside = told_by(hpc(fake_slurm, "status", made.directory / "4", "--json"))
    assert [point["point"] for point in inside["points"]] == ["4"]
    assert str(made.directory) in hpc(fake_slurm, "ls", environ=environ).stdout


def test_results_load_as_a_table(made: Made, fake_slurm: FakeSlurm) -> None:
    told = told_by(hpc(fake_slurm, "results", made.directory, "--json", "--best", "loss:min"))
    first, *others = told["points"]
    assert first == {
        "point": "0", "state": "finished", "step": 100, "value": 0.5, "optimizer.lr": 0.001, "seed": 0,
        "hardware": "cpu", "loss": 1.5, "best_loss": 1.25, "best_loss_step": 99,
    }  # fmt: skip
    assert all(list(other) == list(first) for other in others)
    text = hpc(fake_slurm, "results", made.directory, "--csv", "--best", "loss:max").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert (len(rows), rows[0]["best_loss"], rows[0]["best_loss_step"], rows[9]["loss"]) == (10, "3.0", "98", "")
    refused = hpc(fake_slurm, "results", made.directory, "--best", "loss")
    assert (refused.exit_code, "loss:min" in refused.stderr) == (78, True)


def test_cancel_ends_what_is_alive_and_nothing_else(made: Made, fake_slurm: FakeSlurm) -> None:
    unsaid = hpc(fake_slurm, "cancel", environ={"XDG_STATE_HOME": str(made.directory)})
    assert unsaid.exit_code == 78
    done = hpc(fake_slurm, "cancel", made.directory)
    assert done.exit_code == 0, done.output
    assert [call for call in fake_slurm.calls if call.startswith("scancel")] == ["scancel 100_[1-3]"]
    assert done.stdout == (
        f"Cancelled point 3 (pending) and points 1, 2 (running: saves if there is time) of {made.directory}.\n"
    )
    assert {point for point, job in newest_jobs(made.directory).items() if job.is_cancelled} == {"1", "2", "3"}
    fake_slurm.answer("squeue", "")
    told = told_by(hpc(fake_slurm, "status", made.directory, "1", "3", "--json"))
    assert [point["state"] for point in told["points"]] == ["cancelled", "cancelled"]
    again = told_by(hpc(fake_slurm, "cancel", made.directory, "--json"))
    assert again["cancelled"] == []


def test_cancel_ends_a_job_that_the_one_it_cancels_has_sent_meanwhile(made: Made, fake_slurm: FakeSlurm) -> None:
    sent = {"event": "submitted", "job": "106", "points": ["1"], "time": 2.0, "is_array": True, "first_index": 1}
    (fake_slurm.directory / "bin" / "scancel").write_text(
        "#!/bin/sh\n"
        'echo "scancel $*" >>"$FAKE_SLURM/calls"\n'
        f"cd {made.directory}\n"
        f"grep -q '\"106\"' submissions.jsonl || echo '{json.dumps(sent)}' >>submissions.jsonl\n"
    )
    done = hpc(fake_slurm, "cancel", made.directory)
    assert done.exit_code == 0, done.output
    assert [call for call in fake_slurm.calls if call.startswith("scancel")] == ["scancel 100_[1-3]", "scancel 106_1"]
    newest = newest_jobs(made.directory)
    assert {point: newest[point].id for point in "123"} == {"1": "106_1", "2": "100_2", "3": "100_3"}
    assert all(newest[point].is_cancelled for point in "123")


def test_cancel_ends_a_local_run_only_if_it_is_still_that_process(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = Made(tmp_path / "sweep", fake_slurm).write(2, ())
    programs = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) for _ in range(2)]
    try:
        for point, (program, shift) in enumerate(zip(programs, (0.0, -100.0), strict=True)):
            process = this_process(program.pid)
            moved = type(process)(process.host, process.pid, process.started + shift)
            submission = Submission(f"local-{point}", (str(point),), time.time(), LOCAL, process=moved)
            record_submission(made.directory, submission)
            made.tell(point, BEGAN, attempt=f"submitit-local.local-{point}-0")
        told = told_by(hpc(fake_slurm, "status", made.directory, "--json"))
        assert [point["state"] for point in told["points"]] == ["running", "lost"]
        done = told_by(hpc(fake_slurm, "cancel", made.directory, "--json"))
        assert done["cancelled"] == [{"point": "0", "job": "local-0", "was": "running"}]
        assert programs[0].wait(60) == -15
        assert programs[1].poll() is None
        assert fake_slurm.calls == []
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_resume_and_retry_submit_what_they_should(made: Made, fake_slurm: FakeSlurm) -> None:
    done = told_by(hpc(fake_slurm, "resume", made.directory, "--json"))
    assert done["points"] == ["4", "7", "8", "9"]
    assert "hpc_points=(4 7 8 9)" in fake_slurm.scripts[0]
    jobs = newest_jobs(made.directory)
    assert [(jobs[name].id, jobs[name].after) for name in ("4", "9", "5")] == [
        ("100_0", "linux.200-0.0"),
        ("100_3", ""),
        ("100_5", ""),
    ]
    retried = told_by(
        hpc(fake_slurm, "retry", made.directory, "--cause", "oom", "--set", "hardware.memory_gb=9", "--json")
    )
    assert retried["points"] == ["6"]
    assert "#SBATCH --mem=9G" in fake_slurm.scripts[1]
    changed = told_by(hpc(fake_slurm, "status", made.directory, "--json"))["points"]
    assert [point["overrides"].get("hardware.memory_gb") for point in changed[5:8]] == [None, "9", None]
    for words, sentence in (
        (("--set", "seed=3"), "--set must be a setting of hardware, cluster, launch"),
        (("--set", "hardware.memory_gb=much"), "hardware.memory_gb must be a whole number, but is much"),
        (("--cause", "boredom"), "--cause must be of"),
    ):
        refused = hpc(fake_slurm, "retry", made.directory, *words)
        assert (refused.exit_code, sentence in refused.stderr) == (78, True), refused.output
    assert len(fake_slurm.scripts) == 2


def test_the_cost_of_points_sent_again_is_agreed_to_by_their_own_settings(made: Made, fake_slurm: FakeSlurm) -> None:
    """One of ten points is retried: what is typed about it counts, and the first point of the sweep has no say."""
    costly = ("--set", "hardware.gpus_per_node=1", "--set", "launch.ask_above_gpu_hours=0.001")
    refused = hpc(fake_slurm, "retry", made.directory, "6", *costly)
    assert (refused.exit_code, "add launch.yes=true" in refused.stderr) == (78, True), refused.output
    assert fake_slurm.scripts == []
    assert told_by(hpc(fake_slurm, "retry", made.directory, "6", *costly, "--set", "launch.yes=true", "--json"))
    assert len(fake_slurm.scripts) == 1


def test_a_point_that_was_sent_again_waits_whatever_its_last_life_said(made: Made, fake_slurm: FakeSlurm) -> None:
    record_submission(made.directory, Submission("300", ("5",), time.time(), after={"5": "linux.200-0.0"}))
    made.slurm.answer("squeue", "300|PENDING|N/A|5:00||Resources\n")
    assert told_by(hpc(fake_slurm, "status", made.directory, "5", "--json"))["points"][0]["state"] == "pending"
    made.slurm.answer("squeue", "")
    lost = told_by(hpc(fake_slurm, "status", made.directory, "5", "--json"))["points"][0]
    assert (lost["state"], lost["cause"]["text"]) == ("lost", "it ended before its ranks came up")
    Journal(made.directory / "5", "linux.300-0.0").write(BEGAN)
    Journal(made.directory / "5", "linux.300-0.0").write(Failed(0, 79, "loss must stay finite"))
    failed = told_by(hpc(fake_slurm, "status", made.directory, "5", "--json"))["points"][0]
    assert (failed["state"], failed["cause"]["kind"], failed["attempt"]) == ("failed", "diverged", 2)


def test_logs_of_ranks_are_merged_by_time(made: Made, fake_slurm: FakeSlurm) -> None:
    logs = made.directory / "1" / "logs"
    logs.mkdir()
    (logs / "rank_0.log").write_text(
        "2026-11-25 10:00:01,000 INFO hpc: one\n2026-11-25 10:00:03,000 INFO hpc: three\n  of 0\n"
    )
    (logs / "rank_1.log").write_text("2026-11-25 10:00:02,000 INFO hpc: two\n2026-11-25 10:00:04,000 INFO hpc: four")
    done = hpc(fake_slurm, "logs", made.directory, "1", "--all")
    assert [(line[:4], line.split()[-1]) for line in done.stdout.splitlines()] == [
        ("0 | ", "one"), ("1 | ", "two"), ("0 | ", "three"), ("0 | ", "0"), ("1 | ", "four"),
    ]  # fmt: skip
    assert hpc(fake_slurm, "logs", made.directory, "1", "--rank", "1").stdout.count("\n") == 2
    output = made.directory / "submitit" / "100_1_0_log.out"
    output.parent.mkdir()
    output.write_text("what the program printed\n")
    assert hpc(fake_slurm, "logs", made.directory, "100_1").stdout == "what the program printed\n"
    for words, sentence in (
        (("1", "--attempt", "3"), "--attempt must be at most 2"),
        (("3",), "its state is pending"),
        (("lr=1e-3",), "One point must be named"),
        (("1", "--all", "--rank", "0"), "--rank must not be given beside --all"),
    ):
        refused = hpc(fake_slurm, "logs", made.directory, *words)
        assert (refused.exit_code, sentence in refused.stderr) == (78, True), refused.output


def test_logs_of_one_attempt(made: Made, fake_slurm: FakeSlurm) -> None:
    journals = (made.directory / "1" / "journal" / f"linux.201-{n}.0.jsonl" for n in (0, 1))
    first, second = (json.loads(journal.read_text().splitlines()[0])["time"] for journal in journals)
    stamps = [
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f",{int(at % 1 * 1000):03}"
        for at in (first, second + 1)
    ]
    (made.directory / "1" / "logs").mkdir()
    (made.directory / "1" / "logs" / "rank_0.log").write_text(f"{stamps[0]} INFO hpc: a\n{stamps[1]} INFO hpc: b\n")
    shown = hpc(fake_slurm, "logs", made.directory, "1", "--attempt", "2").stdout
    assert shown.split()[-1] == "b"


def test_following_ends_with_the_point(made: Made, fake_slurm: FakeSlurm) -> None:
    (made.directory / "0" / "logs").mkdir()
    (made.directory / "0" / "logs" / "rank_0.log").write_text("2026-11-25 10:00:01,000 INFO hpc: done\n")
    assert hpc(fake_slurm, "logs", made.directory, "0", "-f").stdout.count("\n") == 1
    watched = hpc(fake_slurm, "status", made.directory, "0", "4", "--watch")
    assert watched.stdout.count("point ") == 1


def test_shells_complete_verbs_sweeps_and_overrides(made: Made, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "_HPC_COMPLETE": "bash_complete"}
    record_sweep(made.directory, environ)

    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        return [item.partition(",")[2] for item in hpc(fake_slurm, environ={**environ, **words}).stdout.splitlines()]

    assert completed("hpc sta") == ["status"]
    assert completed("hpc status optimizer.lr=3") == ["optimizer.lr=3e-4"]
    assert [Path(each).name for each in completed(f"hpc status {os.path.relpath(tmp_path)}")] == ["sweep"]
    assert "_HPC_COMPLETE=fish_complete" in hpc(fake_slurm, "completion", "fish").stdout

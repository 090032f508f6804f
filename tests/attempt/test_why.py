"""One oracle for Python and the shell: what a real controller said at the end of a life, and what is thought of it.

A file of tests/slurm_records/ has the exit code and the life in its first line, with the verdict and what follows;
then what the first rank to fail told, where one did; then the controller's record (Slurm 22.05.8), where it answered.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpc.run.events import Closed, Committed, Ended, Event, Failed, Stopped, to_line
from hpc.run.journal import ENDS, read_journal
from hpc.run.lives import ends_in_a_row
from hpc.run.submissions import newest_jobs, record_cancelled
from hpc.slurm.client import parse_record
from hpc.slurm.why import AGAIN, ALREADY, CRASH, IF_ASKED, LIFE, NOTHING, Life, rows, why
from hpc.submit.answer import UNSURE
from tests.conftest import ROOT

TEMPLATES = ROOT / "slurm_templates"
JOB = {"SLURM_JOB_ID": "42", "SLURM_CLUSTER_NAME": "linux", "SLURM_SUBMIT_DIR": "/"}
SCONTROL = """#!/bin/sh
case "$1" in
show) if [ "$2" = hostnames ]; then echo "$3" | tr , '\n'; else cat "$RECORD"; fi ;;
*) echo "$*" >>"$CALLS"; [ -z "$REFUSAL" ] || { echo "$REFUSAL" >&2; exit 1; } ;;
esac
"""
SINFO = """#!/bin/sh
for node in $NODES; do echo "$node"; done
"""
SBATCH = """#!/bin/sh
echo "sbatch $*" >>"$CALLS"
[ -z "$CANCELLED" ] || echo "$CANCELLED" >>"$HPC_RUN_DIR/submissions.jsonl"
echo 43
"""
SCANCEL = """#!/bin/sh
echo "scancel $*" >>"$CALLS"
"""
PROGRAM = """
hpc_sweep=$1 hpc_point=0 hpc_restarts=$2 hpc_job=42
. "$4/verdicts.sh"
sleep() { :; }
(exit "$3")
. "$4/epilogue.sh"
"""


@dataclass(frozen=True)
class Recorded:
    """One file.

    Args:
        told: The first line, by names.
        failed: The line that the journal has of the first failure; "" where there was none.
        record: What scontrol said; "" where nobody answered.
    """

    told: dict[str, str]
    failed: str
    record: str


def read(path: Path) -> Recorded:
    """The file, taken apart."""
    first, *rest = path.read_text().splitlines()
    failed, record = [line for line in rest if line.startswith("{")], [line for line in rest if line.startswith("J")]
    told = dict(word.split("=") for word in first.split())
    return Recorded(told, "".join(failed), "".join(record))


RECORDS = {path.stem: read(path) for path in sorted((ROOT / "tests" / "slurm_records").glob("*.txt"))}
each_record = pytest.mark.parametrize("recorded", RECORDS.values(), ids=RECORDS)


@each_record
def test_python_thinks_so(recorded: Recorded) -> None:
    failed = json.loads(recorded.failed or "{}")
    code, restarts = (int(recorded.told[name]) for name in ("code", "restarts"))
    life = Life(code, restarts, failed.get("reason", ""), failed.get("code"), failed.get("is_echo", False))
    verdict = why(parse_record(recorded.record), life)
    follows = NOTHING if verdict.follows == IF_ASKED else verdict.follows
    assert (verdict.name, follows) == (recorded.told["verdict"], recorded.told["follows"])


@dataclass(frozen=True)
class Epilogue:
    """The end of a batch script, with a controller that says what was recorded.

    Args:
        directory: Of the sweep and the commands.
    """

    directory: Path

    @property
    def journal(self) -> Path:
        """Of the only point."""
        return self.directory / "0" / "journal"

    @property
    def calls(self) -> list[str]:
        """What the controller was asked to do."""
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, recorded: Recorded, **variables: str) -> tuple[int, str]:
        """Its exit code, and what it said."""
        self.journal.mkdir(parents=True, exist_ok=True)
        (self.journal / f"linux.42-{recorded.told['restarts']}.0.jsonl").write_text(f"{recorded.failed}\n")
        (self.directory / "record").write_text(recorded.record)
        for name, text in (("scontrol", SCONTROL), ("sbatch", SBATCH), ("sinfo", SINFO), ("scancel", SCANCEL)):
            (self.directory / name).write_text(text)
            (self.directory / name).chmod(0o755)
        paths = {"RECORD": str(self.directory / "record"), "CALLS": str(self.directory / "calls")}
        arguments = (str(self.directory), recorded.told["restarts"], recorded.told["code"], str(TEMPLATES))
        done = subprocess.run(
            ["bash", "-c", PROGRAM, "bash", *arguments], capture_output=True, text=True, timeout=120, check=False,
            env={**JOB, **paths, **variables, "PATH": f"{self.directory}:{os.environ['PATH']}"},
        )  # fmt: skip
        return done.returncode, done.stderr

    def ends(self) -> list[Ended]:
        """What the journal tells of it, as Python reads it."""
        return [event for event in read_journal(self.directory / "0") if isinstance(event, Ended)]


@pytest.fixture
def epilogue(tmp_path: Path) -> Epilogue:
    return Epilogue(tmp_path)


@each_record
def test_the_batch_script_thinks_so_and_does_it(recorded: Recorded, epilogue: Epilogue) -> None:
    code, said = epilogue.run(recorded)
    verdict, follows = recorded.told["verdict"], recorded.told["follows"]
    assert [(end.verdict, end.follows) for end in epilogue.ends()] == [(verdict, follows)] * (verdict != "finished")
    assert epilogue.calls == ["requeue 42"] * (follows == AGAIN)
    meant = json.loads(recorded.failed)["code"] if recorded.failed else 1
    assert code == (int(recorded.told["code"]) if meant == 1 else meant)
    assert ("requeued" in said) == (follows in (AGAIN, ALREADY) or verdict in ("cancelled", "out_of_memory", "unknown"))


def test_every_row_of_the_table_was_met() -> None:
    """A row that another one hides is found here, and so is one that nobody has seen."""
    assert {verdict.name for _, verdict in rows()} == {each.told["verdict"] for each in RECORDS.values()}
    assert {verdict.follows for _, verdict in rows()} == {AGAIN, IF_ASKED, ALREADY, NOTHING}
    assert {verdict.budget for _, verdict in rows()} == {CRASH, LIFE, NOTHING}


def test_the_page_has_the_table_as_it_is() -> None:
    lines = [line.split("|") for line in (ROOT / "docs" / "requeue.md").read_text().splitlines() if line[:3] == "| `"]
    shown = [[cell.strip().strip("`") for cell in (line[1], line[4], line[5], line[3])] for line in lines]
    assert shown == [list(verdict) for verdict in dict.fromkeys(verdict for _, verdict in rows())]


def test_an_exception_is_retried_where_that_was_asked_for_and_memory_is_not(epilogue: Epilogue) -> None:
    for name, calls in (("exception", ["requeue 42"]), ("cuda_out_of_memory", ["requeue 42"])):
        epilogue.run(RECORDS[name], hpc_retry_exceptions="1")
        assert epilogue.calls == calls
    epilogue.run(read_scancelled_exception(), hpc_retry_exceptions="1")
    assert epilogue.calls == ["requeue 42"]


@pytest.mark.parametrize(
    ("told", "code", "calls"),
    [
        ([Stopped(8, "TIME_LIMIT")], 75, ["requeue 42"]),
        ([Stopped(8, "STOP_FILE")], 130, []),
        ([Failed(1, 74, "the disk is full")], 74, []),
        ([Failed(1, 1, "it was closed by its peer", is_echo=True)], 1, ["requeue 42"]),
        ([Stopped(8, "TIME_LIMIT"), Closed()], 0, []),
        ([], 0, []),
    ],
)
def test_an_exit_code_that_a_shell_or_a_pipe_around_the_ranks_has_hidden_is_in_the_journal(
    epilogue: Epilogue, told: list[Event], code: int, calls: list[str]
) -> None:
    """`srun bash -c "python train.py; date"`, or `srun python train.py | tee log`."""
    recorded = RECORDS["scancel_signal_usr2"]
    lines = "".join(to_line(replace(event, attempt="linux.42-0.0", time=1.0)) for event in told).rstrip("\n")
    done, said = epilogue.run(replace(recorded, told={**recorded.told, "code": "0"}, failed=lines))
    assert (done, epilogue.calls) == (code, calls), said


@pytest.mark.parametrize(
    ("reason", "nodes", "excluded"),
    [
        ("No rank has gone on for 20 s: rank 3 on n2 is stopped (SIGSTOP) (training, after step 40)", "n1 n2 n3", "n2"),
        ("No rank has gone on for 60 s: rank 3 on n2.site.org is silent (training, after step 4)", "n1 n2 n3", "n2"),
        ("No rank has gone on for 300 s: rank 0 on n1 is not going on (training, after step 40)", "n1 n2 n3", ""),
        ("No rank has gone on for 20 s: rank 3 on n2 is stopped (SIGSTOP) (training, after step 40)", "n2", ""),
    ],
)
def test_the_node_of_a_rank_that_hung_is_left_out_where_there_are_others(
    epilogue: Epilogue, reason: str, nodes: str, excluded: str
) -> None:
    recorded = RECORDS["hung_and_a_peer_that_was_killed"]
    failed = to_line(Failed(1, 70, reason, attempt="linux.42-0.0", time=1.0)).rstrip()
    _, said = epilogue.run(replace(recorded, failed=failed), NODES=nodes, hpc_exclude_failed_nodes="1")
    assert epilogue.calls == ["requeue 42", *([f"update jobid=42 excnodelist={excluded}"] if excluded else [])]
    assert said.endswith(f"hpc: job 42 hung: requeued{f' without {excluded}' * bool(excluded)}.\n")


def test_what_nobody_answers_is_known_by_the_same_words_in_python_and_the_shell() -> None:
    assert f"'{UNSURE.pattern}'" in (TEMPLATES / "epilogue.sh").read_text()


@pytest.mark.parametrize(("jobs", "code"), [(["7_1", "42"], 130), (["7_42", "421"], 0)])
def test_a_job_that_was_cancelled_while_it_asked_for_another_life_has_none(
    tmp_path: Path, jobs: list[str], code: int
) -> None:
    record_cancelled(tmp_path, jobs)
    script = f"hpc_sweep={tmp_path} hpc_points=(0); . {TEMPLATES}/prologue.sh"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **JOB}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "does not begin again" in done.stderr) == (code, code == 130), done.stderr


def read_scancelled_exception() -> Recorded:
    """A program that answers the SIGTERM of scancel with an exception."""
    told = {**RECORDS["exception"].told, "verdict": "cancelled"}
    return Recorded(told, RECORDS["exception"].failed, RECORDS["scancel"].record)


def test_crashes_are_counted_since_the_newest_checkpoint_alike_in_python_and_the_shell(epilogue: Epilogue) -> None:
    crash, stop = RECORDS["rank_killed"], RECORDS["scancel_signal_usr2"]
    fold = epilogue.directory / "0" / "fold-1" / "journal"
    fold.mkdir(parents=True)
    for number, (recorded, commits, code, in_a_row) in enumerate(
        [
            (crash, 0, 137, 1), (crash, 0, 137, 2), (crash, 1, 137, 1), (crash, 0, 137, 2), (stop, 0, 75, 3),
            (stop, 1, 75, 1), (crash, 0, 137, 2), (crash, 0, 137, 3), (crash, 0, 76, 0),  # the third: it ends
            (crash, 0, 137, 1), (stop, 0, 75, 2), (stop, 0, 75, 3), (stop, 0, 75, 4), (stop, 0, 76, 0),  # and the fifth
        ]
    ):  # fmt: skip
        with (fold / "linux.1-0.0.jsonl").open("a") as file:
            file.write("".join(to_line(Committed(step, attempt="a", time=1.0)) for step in range(commits)))
        ended, said = epilogue.run(recorded)
        assert ended == code, (number, said)
        events: list[Event] = [*read_journal(epilogue.directory / "0"), *read_journal(fold.parent)]
        assert len(ends_in_a_row(events)) == in_a_row, number
    assert "and runtime.max_lives_without_progress=5 is reached: look at " in said
    assert (epilogue.journal / ENDS).read_text().count("\n") == 14


def test_a_successor_has_the_script_the_point_and_a_line_among_the_submissions(epilogue: Epilogue) -> None:
    refusal = {"REFUSAL": "Requested operation is presently disabled for job 42"}
    code, said = epilogue.run(RECORDS["no_requeue_without_grace"], **refusal, SLURM_ARRAY_TASK_ID="3")
    requeue, sbatch = epilogue.calls
    assert requeue == "requeue 42"
    assert sbatch.startswith(f"sbatch --parsable --dependency=afterany:42 --array=3 bash {epilogue.directory} ")
    assert (code, said) == (
        75,
        "hpc: job 42 was preempted without a requeue: job 43 goes on from here.\n",
    )
    (job,) = newest_jobs(epilogue.directory).values()
    assert (job.id, job.after, job.submission.points) == ("43_3", "linux.42-0.0", ("0",))


def test_a_successor_of_a_job_that_was_cancelled_meanwhile_is_ended(epilogue: Epilogue) -> None:
    meanwhile = {"CANCELLED": '{"event": "cancelled", "jobs": ["42"]}', "REFUSAL": "it is disabled for job 42"}
    code, said = epilogue.run(RECORDS["no_requeue_without_grace"], **meanwhile)
    assert (code, epilogue.calls[2:]) == (75, ["scancel 43"])
    assert "not requeued (it was cancelled by `hpc cancel`); `hpc resume " in said


def test_what_cannot_be_counted_does_not_go_on(epilogue: Epilogue) -> None:
    (epilogue.journal / ENDS).mkdir(parents=True)
    code, said = epilogue.run(RECORDS["scancel_signal_usr2"])
    assert (code, epilogue.calls) == (75, [])
    assert said == "hpc: job 42 saved its state, which its journal could not be told, and is not requeued.\n"


def test_where_no_job_can_follow_it_is_said_how_to_go_on(epilogue: Epilogue) -> None:
    refusal = {"REFUSAL": "Access/permission denied", "SLURM_SUBMIT_DIR": "/missing"}
    code, said = epilogue.run(RECORDS["no_requeue_without_grace"], **refusal)
    assert code == 75
    assert said.endswith(f"; `hpc resume {epilogue.directory}` goes on from here.\n")
    assert said.startswith("hpc: job 42 was preempted without a requeue: not requeued (")

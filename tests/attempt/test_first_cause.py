"""Which rank was the cause, by what ranks said and others saw: small stories, each with one answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.attempt.cause import Cause
from hpc.attempt.evidence import Evidence, Position
from hpc.attempt.first_cause import first_cause
from hpc.attempt.report import as_json, evidence, evidence_of, gather, report_failure, settle, shown
from hpc.attempt.statement import MOST, Statement, chain_of, statement, statement_files, write_statement
from hpc.attempt.words import ECHO, LATE, OWN, WORKER, sort_of
from hpc.launch.oom import oom_kills
from hpc.slurm.step_end import Exit, StepEnd, step_end
from hpc.slurm.why import Life
from tests.conftest import ROOT, clean_environment

CLOSED = "RuntimeError: [../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:29312"
TIMED_OUT = "RuntimeError: [../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 5000ms for recv to complete"
MINE = "ValueError: no such split"


def says(rank: int, reason: str, at: float = 0.0, host: str = "node1", step: int | None = None) -> Statement:
    return Statement(rank, host, 1000.0 + at, at, 1, reason, (reason,), (reason,), step)


def cause(*told: Statement, end: StepEnd | None = None, at: dict[int, Position] | None = None) -> Cause:
    found = first_cause(Evidence(told, end or StepEnd(), at or {}, 4))
    assert found is not None
    return found


def ends(*exits: Exit, states: tuple[str, ...] = ()) -> StepEnd:
    return StepEnd(exits, states)


def test_an_echo_never_comes_first_however_early_it_is_said() -> None:
    found = cause(says(0, CLOSED), says(2, CLOSED, 0.1), says(1, MINE, 0.5))
    assert (found.rank, found.text, found.exception, found.told_by) == (1, MINE, "ValueError", "rank")


def test_of_two_failures_on_a_node_the_earlier_one_counts() -> None:
    assert cause(says(1, MINE, 0.5), says(0, "KeyError: 'x'", 0.6)).rank == 1


def test_between_nodes_the_step_counts_where_clocks_cannot_tell() -> None:
    early = says(2, "KeyError: 'x'", -1.0, "node2", step=11)  # its clock is behind
    assert cause(early, says(0, MINE, 0.0, step=10)).rank == 0
    assert cause(replace(early, time=900.0), says(0, MINE, 0.0, step=10)).rank == 2


def test_ranks_that_fail_alike_are_named_together() -> None:
    told = [says(rank, f"ValueError: rank {rank} has no data", rank * 0.01) for rank in range(4)]
    assert cause(*told).ranks == (0, 1, 2, 3)


def test_who_was_killed_is_known_from_the_exit_and_not_from_the_echoes() -> None:
    end = ends(Exit(2, 137, "node2"), Exit(0, 1), Exit(1, 143, is_ended=True), Exit(3, 137, is_ended=True))
    found = cause(says(0, CLOSED), end=end)
    assert (found.kind, found.rank, found.host, found.signal) == ("killed", 2, "node2", "SIGKILL")
    assert cause(says(0, CLOSED), end=replace(end, states=("OUT_OF_MEMORY",))).kind == "oom"


def test_a_rank_that_was_killed_before_comes_before_what_looks_like_a_failure_of_its_own() -> None:
    end = ends(Exit(2, 139), Exit(0, 1))
    assert cause(says(0, "KeyError: 'what the peer should have sent'"), end=end).rank == 2
    assert cause(says(0, MINE), end=ends(Exit(0, 1), Exit(2, 139))).rank == 0


@pytest.mark.parametrize(("code", "words"), [(3, "exit code 3 and without a word"), (0, "left early")])
def test_a_rank_that_left_without_a_word(code: int, words: str) -> None:
    found = cause(says(0, CLOSED), says(1, CLOSED), says(2, CLOSED), end=ends(Exit(3, code), Exit(0, 1)))
    assert (found.rank, words in found.text) == (3, True)


def test_the_only_rank_that_nobody_saw_is_missed() -> None:
    found = cause(says(0, CLOSED), says(1, CLOSED), says(2, CLOSED))
    assert (found.kind, found.rank, found.told_by) == ("killed", 3, "echo")


def test_of_many_that_nobody_saw_the_one_that_is_elsewhere_is_missed() -> None:
    at = {rank: Position(7 if rank == 2 else 8, "backward", f"node{rank}") for rank in range(4)}
    found = cause(says(0, CLOSED), at=at)
    assert (found.rank, found.step, found.host) == (2, 7, "node2")
    assert cause(says(0, CLOSED)).rank is None


def test_a_rank_that_dies_when_it_is_asked_for_its_stacks_has_hung_before(tmp_path: Path) -> None:
    """Faulthandler walks through frames that others change meanwhile; the stopped rank was let go on for it."""
    record = tmp_path / "failures" / "a.json"
    hung = "No rank has gone on for 17 s: rank 1 on node1 is stopped (SIGSTOP) (training, after step 48)"
    for told in (replace(says(0, hung, 20.0), code=70), says(0, CLOSED, 22.2)):
        write_statement(record, told)
    for died, kind in ((1022.1, "hang"), (1019.0, "killed")):  # one that had died before is what the others waited for
        seen = evidence(record, ends(Exit(1, 139, "node1", False, died), Exit(0, 1, "node1", True, 1022.3)), 2)
        found = first_cause(seen)
        assert found is not None
        assert (found.kind, found.rank) == (kind, 1)


def test_a_rank_that_others_waited_for_hangs_although_it_was_killed_later() -> None:
    end = ends(Exit(0, 1), Exit(1, 1), Exit(2, 1), Exit(3, 137, is_ended=True))
    found = cause(says(0, TIMED_OUT), says(1, TIMED_OUT, 0.1), says(2, CLOSED, 0.2), end=end)
    assert (found.kind, found.rank) == ("hang", 3)


def test_ranks_that_all_waited_are_told_apart_by_where_they_were() -> None:
    at = {rank: Position(8, "evaluate" if rank == 1 else "backward") for rank in range(4)}
    told = [says(rank, TIMED_OUT, rank * 0.1) for rank in range(4)]
    assert cause(*told, at=at).rank == 1
    assert cause(*told).rank is None


def test_ranks_that_all_waited_are_told_apart_by_the_line_of_code_that_waited() -> None:
    lines = [('  File "loop.py", line 9, in train', TIMED_OUT)] * 3 + [
        ('  File "loop.py", line 7, in count', TIMED_OUT)
    ]
    told = [replace(says(rank, TIMED_OUT), lines=each) for rank, each in enumerate(lines)]
    assert cause(*told).rank == 3


def test_a_rank_that_did_not_come_is_named_by_the_rendezvous() -> None:
    missing = (
        "All 4 ranks must come within runtime.rendezvous_timeout_seconds, but 1 did not: see the output of rank 2."
    )
    assert cause(*(says(rank, missing) for rank in (0, 1, 3))).rank == 2


def test_what_slurm_ends_is_no_failure_of_a_rank() -> None:
    log = "slurmstepd: error: *** STEP 4.0 ON node1 CANCELLED AT 2026-11-25T10:00:00 DUE TO PREEMPTION ***"
    found = cause(says(0, CLOSED), end=step_end(log))
    assert (found.kind, found.rank) == ("preempted", None)


def test_a_node_that_failed_takes_its_ranks_along() -> None:
    at = {rank: Position(3, host=f"node{1 + rank // 2}") for rank in range(4)}
    found = cause(says(0, CLOSED), end=step_end("srun: error: Node failure on node2\n"), at=at)
    assert (found.kind, found.host, found.ranks) == ("node_fail", "node2", (2, 3))


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "CUDA"),
        ("MemoryError", "host"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory", "host"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory", "host"),
        ("OSError: [Errno 12] Cannot allocate memory", "host"),
        ("RuntimeError: std::bad_alloc", "host"),
        (MINE, ""),
    ],
)
def test_whose_memory_was_short(text: str, memory: str) -> None:
    """The batch script has words of its own, because it decides without Python whether a run goes on."""
    found = cause(says(1, text))
    assert Life(1, failure=text).told == ("memory" if memory else "exception")
    assert (found.memory, found.kind) == (memory, "oom" if memory else "crash")


def test_a_worker_that_was_killed_is_its_ranks_trouble() -> None:
    worker = "RuntimeError: DataLoader worker (pid 77) is killed by signal: Killed. "
    found = cause(says(0, CLOSED), says(2, worker, 0.3))
    assert (found.kind, found.rank) == ("killed", 2)


def test_nothing_is_a_cause_where_nothing_failed() -> None:
    assert first_cause(Evidence(world_size=4)) is None
    assert first_cause(Evidence(end=ends(Exit(0, 0), Exit(1, 0)), world_size=2)) is None


def raised(*steps: BaseException) -> BaseException:
    """Each raised while the one before is handled."""
    first, *rest = steps
    for each in rest:
        each.__context__, first = first, each
    return first


@pytest.mark.parametrize(
    ("chain", "sort"),
    [
        ((RuntimeError("Connection closed by peer"),), ECHO),
        ((ValueError("mine"), RuntimeError("Connection closed by peer")), OWN),  # in its own `finally`
        ((RuntimeError("Connection closed by peer"), OSError("the save failed")), ECHO),
        ((KeyError("handled"), RuntimeError("Connection closed by peer")), ECHO),
        ((RuntimeError("Timed out waiting 1000ms for recv"),), LATE),
        ((RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),), WORKER),
        ((BrokenPipeError(32, "Broken pipe"),), ECHO),
    ],
)
def test_the_root_of_an_exception_says_whose_it_is(chain: tuple[BaseException, ...], sort: str) -> None:
    assert sort_of(chain_of(raised(*chain))) == sort


def test_what_a_rank_failed_of_is_said_and_not_what_it_met_in_its_cleaning_up() -> None:
    error = raised(ValueError("mine"), RuntimeError("Connection closed by peer"))
    told = statement(0, "node1", 1, error, "Traceback\nRuntimeError: Connection closed by peer")
    assert (told.reason, told.exception, told.is_echo) == ("ValueError: mine", "ValueError", False)


SRUN = """\
srun: error: node2: task 3: Killed
srun: launch/slurm: _step_signal: Terminating StepId=5.0
slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 2026-11-29T00:12:30 ***
srun: error: node1: tasks 0-1: Exited with exit code 1
srun: error: node2: task 2: Segmentation fault (core dumped)
srun: error: node[1-2]: tasks 4,6-7: Out Of Memory
"""


def test_the_words_of_srun_tell_how_tasks_ended() -> None:
    end = step_end(SRUN)
    assert end.exits == (
        Exit(3, 137, "node2"),
        *(Exit(rank, 1, "node1", is_ended=True) for rank in (0, 1)),
        Exit(2, 139, "node2", is_ended=True),
        *(Exit(rank, 137, "", is_ended=True) for rank in (4, 6, 7)),
    )
    assert end.states == ("OUT_OF_MEMORY",)
    assert step_end("srun: error: node1: tasks 0-99999999999: Killed\nnode: task x: Killed") == StepEnd()


def test_a_report_comes_back_as_it_was_written() -> None:
    seen = Evidence(
        (says(0, CLOSED, step=3),),
        ends(Exit(1, 137, "node1"), states=("NODE_FAIL",)),
        {0: Position(3, "save")},
        2,
        ("x",),
    )
    assert evidence_of(json.loads(json.dumps(as_json(seen, first_cause(seen))))) == seen


def test_a_damaged_report_is_no_report(tmp_path: Path) -> None:
    record = tmp_path / "failures" / "a.json"
    write_statement(record, says(1, MINE))
    for text in ("", "[]", '{"statements": 3}', '{"statements": [{"rank": "x"}]}', "null"):
        record.write_text(text)
        assert [each.rank for each in evidence(record).statements] == [1]
    statement_files(record)[0].write_text('{"rank": 0')
    assert evidence(record) == Evidence()


def test_ten_thousand_ranks_leave_few_files(tmp_path: Path) -> None:
    record = tmp_path / "failures" / "a.json"
    written = [write_statement(record, says(rank, CLOSED if rank % 2 else MINE)) for rank in range(200)]
    assert sum(written) == len(statement_files(record)) == sum(MOST.values())
    report_failure(record, 200)
    settle(record)
    assert sorted(path.name for path in record.parent.iterdir()) == ["a.json", "a.txt"]
    assert len(evidence(record).statements) == sum(MOST.values())


def test_ranks_that_fail_at_once_leave_one_report_of_all(tmp_path: Path) -> None:
    record, start = tmp_path / "failures" / "a.json", threading.Barrier(8)

    def fail(rank: int) -> None:
        start.wait()
        write_statement(record, says(rank, MINE if rank == 5 else CLOSED))
        report_failure(record, 8)

    threads = [threading.Thread(target=fail, args=(rank,)) for rank in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = json.loads(record.read_text())
    assert report["cause"]["rank"] == 5
    assert {each["rank"] for each in report["statements"]} == {*range(8)}
    assert record.with_suffix(".txt").read_text().startswith("hpc: rank 5 of 8 on node1 failed first:\n" + MINE)


def test_the_next_life_puts_the_files_of_the_last_one_into_its_report(tmp_path: Path) -> None:
    failures = tmp_path / "failures"
    write_statement(failures / "job-0.json", says(0, MINE))
    write_statement(failures / "job-1.json", says(0, MINE))
    gather(failures, failures / "job-1.json")
    assert sorted(path.name for path in failures.iterdir()) == ["job-0.json", "job-0.txt", "job-1.own_0.json"]
    gather(tmp_path / "nowhere", tmp_path)


def test_the_text_says_what_a_person_asks_for() -> None:
    told = replace(says(1, MINE, step=10), lines=("Traceback", MINE), phase="backward")
    at = {rank: Position(10 if rank != 2 else 9, "backward", f"node{rank}") for rank in range(4)}
    seen = Evidence((told, says(0, CLOSED), says(3, CLOSED)), StepEnd(), at, 4)
    found = first_cause(seen)
    assert found is not None
    assert shown(found, seen).splitlines() == [
        "hpc: rank 1 of 4 on node1 failed first:",
        "Traceback",
        MINE,
        "hpc: it was in step 10, backward.",
        f"hpc: rank 0, 3 failed after that: {CLOSED}",
        "hpc: last heard of: rank 0-1, 3 in step 10, backward; rank 2 in step 9, backward",
    ]


def test_a_statement_is_short_and_has_the_workers_own_words() -> None:
    error = ValueError("Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\nValueError: mine")
    told = statement(0, "node1", 1, error, "\n".join(["line" * 1000] * 100 + ["ValueError: mine"]))
    assert told.reason == "ValueError: mine"
    assert len(json.dumps(told.__dict__)) < 20_000


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_kernel_counts_whom_it_has_killed(tmp_path: Path, version: str) -> None:
    own = tmp_path / "own"
    own.write_text("4:memory:/job\n0::/\n" if version == "v1" else "0::/job\n")
    place = tmp_path / ("memory/job/memory.oom_control" if version == "v1" else "job/memory.events")
    place.parent.mkdir(parents=True)
    place.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills(own, tmp_path) == 3
    assert oom_kills(tmp_path / "nothing", tmp_path) == 0


def test_a_rank_that_crashes_in_c_leaves_its_stack() -> None:
    program = "import ctypes, hpc.attempt.attempt as a; a.prepare_process({}); ctypes.string_at(0)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_the_decision_needs_nothing_that_takes_long_to_import() -> None:
    slow = "{'torch', 'hydra', 'hpc.say', 'hpc.world.resolve'}"
    program = f"import sys, hpc.attempt.report; sys.exit(int(bool({slow} & {{*sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), check=False)
    assert done.returncode == 0

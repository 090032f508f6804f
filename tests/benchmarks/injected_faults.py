"""Faults that are injected into four ranks, and what is seen of each: by our report, and by torchrun.

Every fault runs in a process of its own, whose forks are the ranks. They are watched over as srun with
--kill-on-bad-exit does it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from hpc.attempt.evidence import Evidence
from hpc.attempt.first_cause import first_cause
from hpc.attempt.report import as_json, evidence
from hpc.attempt.statement import MOST_CHARACTERS
from hpc.run.directory import RunDirectory
from hpc.slurm.step_end import Exit, StepEnd
from tests.conftest import ROOT

CORPUS = ROOT / "tests" / "attempt" / "first_causes.json"
RANKS, RANKS_PER_NODE = 4, 2
KILL_SECONDS = 6.0
CLONE_NEWUTS = 0x04000000
CRASH, KILLED, HANG, OOM = ("crash",), ("killed",), ("hang",), ("oom",)


@dataclass(frozen=True)
class Case:
    """A fault and its truth.

    Args:
        fault: See `tests.programs.faulty`.
        ranks: Where it happens; with `all`, each of them is right.
        kinds: What it may be called.
        words: Part of what is said of it: of the exception, or the signal or exit code.
        timeout_seconds: Of a collective.
    """

    fault: str
    ranks: tuple[int, ...]
    kinds: tuple[str, ...]
    words: str
    timeout_seconds: int = 10


CASES = (
    *(Case(f"exception@{where}", (rank,), CRASH, "asked to fail") for where, rank in (
        ("start", 2), ("build", 1), ("data", 3), ("forward", 0), ("forward", 3), ("backward", 2), ("optimizer", 1),
        ("evaluate", 2), ("save", 0), ("worker", 1),
    )),
    Case("exception@forward", (0, 1, 2, 3), CRASH, "asked to fail"),
    Case("lookup@data", (2,), CRASH, "no such column"),
    Case("assertion@forward", (1,), CRASH, "vocabulary"),
    Case("shapes@forward", (2,), CRASH, "shapes cannot be multiplied"),
    Case("cleanup@step", (3,), CRASH, "before the cleaning up"),
    Case("import@start", (3,), CRASH, "No module named"),
    Case("port@build", (0,), CRASH, "Address already in use"),
    Case("disk@step", (2,), CRASH, "No space left"),
    Case("nan@step", (1,), ("diverged",), "finite"),
    Case("memory@data", (1,), OOM, "MemoryError"),
    Case("host@forward", (2,), OOM, "memory"),
    Case("cuda@forward", (3,), OOM, "CUDA out of memory"),
    Case("exit3@step", (1,), CRASH, "3"),
    Case("exit0@step", (2,), (*CRASH, *KILLED), "0"),
    Case("hardexit@step", (3,), CRASH, "7"),
    Case("hardexit@backward", (0,), CRASH, "7"),
    *(Case(f"sigkill@{where}", (rank,), KILLED, "SIGKILL") for where, rank in (
        ("start", 1), ("build", 2), ("step", 0), ("step", 3), ("backward", 1), ("save", 0),
    )),
    Case("sigkill@worker", (2,), KILLED, "killed by signal"),
    Case("sigsegv@step", (1,), KILLED, "SIGSEGV"),
    Case("sigsegv@backward", (3,), KILLED, "SIGSEGV"),
    Case("sigabrt@step", (2,), KILLED, "SIGABRT"),
    Case("sigbus@step", (0,), KILLED, "SIGBUS"),
    Case("oom@step", (1,), OOM, "SIGKILL"),
    Case("node@step", (2, 3), ("node_fail",), "node2"),
    Case("sleep@step", (2,), HANG, "waited"),
    Case("sleep@data", (0,), HANG, "waited"),
    Case("sleep@start", (3,), HANG, "rank"),
    Case("sigstop@step", (1,), HANG, "waited"),
    Case("sigstop@backward", (2,), HANG, "stopped", timeout_seconds=600),
    Case("deadlock@step", (3,), HANG, "wait"),
    Case("absent@gather", (1,), HANG, "waited"),
)  # fmt: skip


def name_of(case: Case) -> str:
    """The fault, and where it happens."""
    where = "all ranks" if len(case.ranks) == RANKS else f"rank {', '.join(map(str, case.ranks))}"
    return f"{case.fault}, {where}"


def node_of(rank: int) -> str:
    """Its host's name."""
    return f"node{1 + rank // RANKS_PER_NODE}"


class Step:
    """Four ranks, forked from this process, which has imported torch already.

    Args:
        case: What is to go wrong.
        directory: The run directory.
    """

    def __init__(self, case: Case, directory: Path) -> None:
        self.case, self.directory = case, directory
        self.exits: list[Exit] = []
        self.pids: dict[int, int] = {}
        self.cgroup = _cgroup() if case.fault.startswith("oom@") else None

    def run(self) -> tuple[Evidence, StepEnd]:
        """Run it to its end; what was seen."""
        self.pids = {self._fork(rank): rank for rank in range(RANKS)}
        deadline, limit, is_ended = float("inf"), time.monotonic() + 120, False
        while len(self.exits) < RANKS:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                rank = self.pids[pid]
                self.exits.append(
                    Exit(rank, code if code >= 0 else 128 - code, node_of(rank), is_ended, round(time.time(), 3))
                )
                if code and not is_ended and not self._is_node_gone(rank):
                    is_ended, deadline = True, time.monotonic() + KILL_SECONDS
                    self._signal(signal.SIGTERM)
            elif time.monotonic() > min(deadline, limit):
                self._signal(signal.SIGKILL)
            time.sleep(0.005)
        return evidence(RunDirectory(self.directory).failure("recorded-0"), world_size=RANKS), self._end()

    def _is_node_gone(self, rank: int) -> bool:
        """Nobody on a node that fails can tell; it takes until the others have noticed."""
        if not self.case.fault.startswith("node@") or rank not in self.case.ranks:
            return False
        for pid, each in self.pids.items():
            if each in self.case.ranks and each not in {found.rank for found in self.exits}:
                os.kill(pid, signal.SIGKILL)
        return True

    def _end(self) -> StepEnd:
        if self.case.fault.startswith("node@"):
            kept = tuple(each for each in self.exits if each.rank not in self.case.ranks)
            return StepEnd(kept, ("NODE_FAIL",), (node_of(self.case.ranks[0]),))
        return StepEnd(tuple(self.exits), ("OUT_OF_MEMORY",) if self.cgroup and _killed_in(self.cgroup) else ())

    def _signal(self, number: int) -> None:
        gone = {each.rank for each in self.exits}
        for pid, rank in self.pids.items():
            if rank not in gone:
                os.kill(pid, number)

    def _fork(self, rank: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                self._be_a_rank(rank)
            finally:
                os._exit(1)
        return pid

    def _be_a_rank(self, rank: int) -> None:
        from hpc.attempt.attempt import begin, prepare_process
        from hpc.attempt.life import start
        from hpc.config import settings_of
        from hpc.run.secret import Secret
        from hpc.task.guard import guarded
        from hpc.world import World
        from tests.programs.faulty import Fault, ours

        be_on(node_of(rank), self.directory / f"output_{rank}")
        name = {"oom": "oom@step", "node": "sigkill@step"}.get(self.case.fault.partition("@")[0], self.case.fault)
        first = rank == self.case.ranks[0] if self.case.fault.startswith("node@") else rank in self.case.ranks
        fault = Fault(name, first, self.directory)
        if self.cgroup is not None and first:
            (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        config = {
            "run_dir": str(self.directory),
            "runtime": {
                "device": "cpu", "trackers": [], "collective_timeout_seconds": self.case.timeout_seconds,
                "rendezvous_timeout_seconds": 30,
            },
            "checkpoint": {"every_steps": 5},
        }  # fmt: skip
        prepare_process(os.environ)
        world = World(rank, RANKS, rank, RANKS, 0, 1, ("127.0.0.1",), "benchmark", self.directory.parent.name)
        attempt = begin(world, Secret(b"the benchmark's", "it"), self.directory, lambda *_: "", dict(os.environ))
        attempt = replace(attempt, id="recorded-0", record=RunDirectory(self.directory).failure("recorded-0"))

        def body() -> None:
            start(attempt, settings_of(config))
            ours(fault, config)

        os._exit(guarded(attempt, body))


def be_on(host: str, output: Path) -> None:
    """Make this process one of another node, whose words go to a file."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUTS) == 0:
        socket.sethostname(host)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _cgroup() -> Path | None:
    """A cgroup (version 1) with little memory; None where none can be made."""
    place = Path(f"/sys/fs/cgroup/memory/first-cause-{os.getpid()}-{time.monotonic_ns()}")
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(400 << 20))
    except OSError:
        return None
    return place


def _killed_in(cgroup: Path) -> bool:
    text = (cgroup / "memory.oom_control").read_text()
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return any(line.startswith("oom_kill ") and int(line.split()[1]) for line in text.splitlines())


def _entry(name: str, ranks: tuple[int, ...], directory: str) -> None:
    """What torchrun runs as each rank."""
    from tests.programs.faulty import Fault, plain

    rank = int(os.environ["RANK"])
    os.dup2(os.open(f"{directory}/plain_{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    plain(Fault(name, rank in ranks, Path(directory)))


def under_torchrun(case: Case, directory: Path) -> tuple[int, str] | None:
    """The root cause as torchrun has it: `ChildFailedError` is made of what @record has written."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    name = {"oom": "sigkill@step", "node": "sigkill@step"}.get(case.fault.partition("@")[0], case.fault)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=RANKS, run_id=directory.name, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1, start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=str(directory / "elastic")),
    )  # fmt: skip
    try:
        elastic_launch(config, _entry)(name, case.ranks, str(directory))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        told = failure.message["message"] if isinstance(failure.message, dict) else failure.message
        return rank, f"{told[:MOST_CHARACTERS]} exitcode {failure.exitcode} {failure.signal_name()}"
    return None


def record(path: Path, cases: Sequence[Case]) -> None:
    """Run faults in both ways, each in a process of its own; what was seen is written line by line."""
    for name in ("torch.distributed.launcher.api", "torch.nn.parallel", "hpc.runtime.runtime", "tests.programs.faulty"):
        import_module(name)  # once, for all ranks of all faults

    with path.open("w") as file:
        for case in cases:
            print(name_of(case), flush=True)
            file.write(_in_a_process(case) + "\n")
            file.flush()


def _in_a_process(case: Case) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            with tempfile.TemporaryDirectory(prefix="first-cause-") as scratch:
                (Path(scratch) / "run").mkdir()
                seen, end = Step(case, Path(scratch) / "run").run()
                told = under_torchrun(case, Path(scratch))
                seen = replace(seen, end=end)
                seen = replace(seen, statements=tuple(replace(each, lines=each.lines[-4:]) for each in seen.statements))
                line = json.dumps({"case": asdict(case), "seen": as_json(seen, first_cause(seen)), "torchrun": told})
                for path, name in ((scratch, "/scratch"), (str(ROOT), "/project"), (sys.prefix, "/python")):
                    line = line.replace(path, name)
                os.write(writer, line.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        line = answers.read().decode()
    os.waitpid(pid, 0)
    return line

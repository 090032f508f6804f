"""Which rank failed first, and why: our report beside torchrun's error file, on the same injected faults.

    python -m tests.benchmarks.first_cause            the score of the recorded runs, with noise
    python -m tests.benchmarks.first_cause record     run every fault anew, in both ways, and record it; needs root

Four ranks on two nodes are processes of this machine, the nodes UTS namespaces. They are watched over as srun with
--kill-on-bad-exit does it, and what it would have said of their ends is kept in its own words. torchrun runs the same
faults in a plain loop, all four ranks under one agent, which spares it the doubt between nodes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from hpc.attempt.cause import Cause, signal_name
from hpc.attempt.first_cause import Evidence, first_cause
from hpc.attempt.report import as_json, evidence, evidence_of
from hpc.attempt.statement import MOST_CHARACTERS, Statement
from hpc.run.directory import RunDirectory
from hpc.slurm.step_end import Exit, StepEnd, step_end
from tests.conftest import ROOT

CORPUS = ROOT / "tests" / "attempt" / "first_causes.json"
RANKS, RANKS_PER_NODE = 4, 2
KILL_SECONDS = 6.0
CLONE_NEWUTS = 0x04000000
SEEDS = 40
"""How often each recorded run is looked at, each time with other noise."""
MISSING, HARDER = 0.1, 0.25
"""Of the echoes of ranks that were ended before the last word was said, how many are missing."""
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


@dataclass(frozen=True)
class Recorded:
    """What was seen of one fault.

    Args:
        case: The fault.
        seen: Everything but the ends of ranks, which are in `end`.
        end: As the queue of a machine sees them.
        torchrun: Rank and message of torchrun's root cause; None where it has named none.
    """

    case: Case
    seen: Evidence
    end: StepEnd
    torchrun: tuple[int, str] | None


def node_of(rank: int) -> str:
    """Its host's name."""
    return f"node{1 + rank // RANKS_PER_NODE}"


def srun_words(end: StepEnd) -> list[str]:
    """The same ends as srun and slurmstepd tell them."""
    lines, is_ended = [f"srun: error: Node failure on {node}" for node in end.failed_nodes], False
    for each in end.exits:
        if each.is_ended and not is_ended:
            is_ended = True
            lines.append("slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-29T00:12:30 ***")
        name = signal_name(each.code)
        words = signal.strsignal(signal.Signals[name]) if name else f"Exited with exit code {each.code}"
        if each.code:
            lines.append(f"srun: error: {each.host}: task {each.rank}: {words}")
    oom = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."
    return [*lines, *([oom] if "OUT_OF_MEMORY" in end.states else [])]


def noisy(recorded: Recorded, seed: int, missing: float = MISSING) -> Evidence:
    """What might have been seen of the same fault.

    Clocks of nodes differ by up to a second, echoes come in another order and may be said before their cause by the
    clock, some of those are missing whose ranks were ended meanwhile, the scheduler's words are cut, and some pulses are
    lost. Half of the time the ends of ranks are known from the words of srun alone.

    Args:
        recorded: What was seen.
        seed: Of the noise.
        missing: How large a share of the echoes of ranks that were ended is lost.
    """
    draw = random.Random(f"{recorded.case.fault} {recorded.case.ranks} {seed}")
    skews = {node_of(rank): draw.uniform(-1, 1) for rank in range(RANKS)}
    told = [
        replace(each, time=each.time + skews.get(each.host, 0.0), lines=each.lines[-3:])
        for each in recorded.seen.statements
    ]
    told = [_late(each, draw) if each.is_echo else each for each in told]
    ended = {each.rank for each in recorded.end.exits if each.is_ended}
    told = [each for each in told if not (each.is_echo and each.rank in ended and draw.random() < missing)]
    draw.shuffle(told)
    positions = {rank: at for rank, at in recorded.seen.positions.items() if draw.random() > 0.1}
    lines = srun_words(recorded.end)
    cut = draw.randrange(max(1, len(lines) // 3 + 1))
    words = step_end("\n".join(lines[cut:] if draw.random() < 0.5 else lines[: len(lines) - cut]))
    end = words if draw.random() < 0.5 else recorded.end
    return replace(recorded.seen, statements=tuple(told), end=end, positions=positions)


def _late(told: Statement, draw: random.Random) -> Statement:
    later = draw.uniform(-0.5, 2.0)
    return replace(told, time=told.time + later, monotonic=told.monotonic + later)


def is_right(case: Case, cause: Cause | None) -> bool:
    """Whether rank, node and kind are those of the fault."""
    if cause is None or cause.rank not in case.ranks:
        return False
    return cause.kind in case.kinds and cause.host == node_of(cause.rank)


def torchrun_is_right(recorded: Recorded) -> tuple[bool, bool]:
    """Whether torchrun names the rank, and whether it says what it failed of besides."""
    if recorded.torchrun is None:
        return False, False
    rank, message = recorded.torchrun
    is_rank = rank in recorded.case.ranks
    return is_rank, is_rank and recorded.case.words in message


def read_corpus(path: Path = CORPUS) -> list[Recorded]:
    """The recorded runs."""
    return [
        Recorded(
            Case(**{**line["case"], "ranks": tuple(line["case"]["ranks"]), "kinds": tuple(line["case"]["kinds"])}),
            replace(evidence_of(line["seen"]), end=StepEnd()),
            evidence_of(line["seen"]).end,
            tuple(line["torchrun"]) if line["torchrun"] else None,
        )
        for line in map(json.loads, path.read_text().splitlines())
    ]


def score(corpus: Sequence[Recorded], missing: float = MISSING) -> dict[str, float]:
    """By fault: the share of looks, each with other noise, in which rank, node and kind are right."""
    looks = {name_of(each.case): [noisy(each, seed, missing) for seed in range(SEEDS)] for each in corpus}
    return {
        name_of(each.case): sum(is_right(each.case, first_cause(seen)) for seen in looks[name_of(each.case)]) / SEEDS
        for each in corpus
    }


def name_of(case: Case) -> str:
    """The fault, and where it happens."""
    where = "all ranks" if len(case.ranks) == RANKS else f"rank {', '.join(map(str, case.ranks))}"
    return f"{case.fault}, {where}"


def table(corpus: Sequence[Recorded]) -> Iterator[str]:
    """What is printed, and kept in docs/first-cause.md."""
    shares = score(corpus)
    yield "| fault | ours | torchrun: rank | torchrun: rank and cause |"
    yield "|---|---:|---|---|"
    for each in corpus:
        name, _, where = name_of(each.case).partition(", ")
        answers = " | ".join(map(_yes, torchrun_is_right(each)))
        yield f"| `{name}`, {where} | {shares[name_of(each.case)]:.0%} | {answers} |"
    calm = [is_right(each.case, first_cause(replace(each.seen, end=each.end))) for each in corpus]
    ranks, causes = zip(*map(torchrun_is_right, corpus), strict=True)
    harder = score(corpus, HARDER)
    yield f"| **all {len(corpus)}, with noise** | **{_share([*shares.values()])}** | | |"
    yield f"| **all {len(corpus)}, with {HARDER:.0%} of echoes missing** | **{_share([*harder.values()])}** | | |"
    yield f"| **all {len(corpus)}, as recorded** | **{_share(calm)}** | **{_share(ranks)}** | **{_share(causes)}** |"


def _share(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


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
        prepare_process()
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


def main(arguments: Sequence[str]) -> int:
    """Record, or print the score."""
    if arguments[:1] == ["record"]:
        record(CORPUS, CASES)
    for line in table(read_corpus()):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Does a small sweep live through half an hour of everything at once, and where does its time go?

    python -m tests.benchmarks.soak [MINUTES] [SEED]

Four points, each on a node of its own, are preempted, killed, stopped, cut off and so on, in a random order, again and
again. At the end every kind of fault must have met somebody, every point must be bitwise the one that nobody disturbed,
and the queue must be empty. What `hpc status` asks a person to do is done: after a full disk, which ends a run, room is
made and `hpc retry` typed; and where a node that was cut off is back before its old ranks have left, Slurm 22.05 drains
it and holds the job that it sends there ("Duplicate jobid"): the node is resumed and the job released.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.run.events import Committed, Finished, Resumed, Started
from hpc.run.journal import read_journal
from hpc.testing.cluster import ClusterOptions, CommandFailedError, SlurmCluster
from hpc.testing.daemons import tail
from hpc.testing.faults import Faults
from tests.conftest import ROOT, clean_environment
from tests.support.equality import differences

STEP_SECONDS = 0.2
SHARE = 0.5
"""Of the given time that training alone takes; the rest goes to faults."""
SECONDS_BETWEEN = (8.0, 25.0)
PATIENCE_SECONDS = 1200
NODES = 4
JOB = (
    "-m", "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=2", "hardware.time_limit_minutes=120",
    "experiment.target=tests.programs.jobs.train", "runtime.deterministic=true", "checkpoint.every_steps=25",
    "launch.max_crashes=20", "runtime.max_lives_without_progress=40", "launch.snapshot=false", "seed=0,1,2,3",
    "+cluster.sbatch.exclusive=true",
)  # fmt: skip


@dataclass
class Split:
    """Where the time of a point went, in seconds; the parts add up to the time from its submission to its end."""

    queue: float = 0.0
    floor: float = 0.0
    start_up: float = 0.0
    load: float = 0.0
    redo: float = 0.0
    blocked: float = 0.0
    productive: float = 0.0

    @property
    def wall(self) -> float:
        """The sum of all parts."""
        return float(sum(getattr(self, part.name) for part in fields(self)))


def main(minutes: float, seed: int) -> str:
    """Run it, and tell what became of it as a text.

    Raises:
        SystemExit: A point differs from the undisturbed one, something is left in the queue, a kind of fault has met
            nobody, or the parts of a point's time do not add up to it.
    """
    steps = int(minutes * 60 * SHARE / STEP_SECONDS)
    conf = ("SlurmdTimeout=30", "MinJobAge=3600")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        place = Path(name)
        golden = undisturbed(place / "golden", steps)
        options = ClusterOptions(nodes=NODES, gpus_per_node=0, small_disk_mb=512, extra_conf=conf)
        with SlurmCluster(place / "slurm", options) as cluster:
            sweep = cluster.small_disk / "sweep"
            began = time.time()
            typed(cluster, sys.executable, str(ROOT / "run.py"), *job(steps, STEP_SECONDS), f"run_dir={sweep}")
            happened = torment(cluster, sweep, minutes * 60, random.Random(seed))
            await_end(cluster, sweep)
            return told(cluster, sweep, golden, happened, began)


def job(steps: int, step_seconds: float) -> tuple[str, ...]:
    """What is typed after run.py."""
    return (*JOB, f"steps={steps}", f"+job={{step_seconds:{step_seconds}}}")


def undisturbed(directory: Path, steps: int) -> Path:
    """The same sweep on this machine, without waiting in its steps."""
    directory.mkdir()
    command = [sys.executable, str(ROOT / "run.py"), *job(steps, 0), "cluster=local", f"run_dir={directory}/run"]
    subprocess.run(command, cwd=directory, env=clean_environment(), capture_output=True, timeout=3600, check=True)
    return directory / "run"


def typed(cluster: SlurmCluster, *command: str) -> str:
    """What a command prints that a person types on the login node."""
    environ = {**clean_environment(), **cluster.environment, "PYTHONPATH": str(ROOT)}
    return cluster.run(*command, env=environ, timeout=300).stdout


def torment(cluster: SlurmCluster, sweep: Path, seconds: float, dice: random.Random) -> dict[str, int]:
    """Do something to a job or a node until the time is over and every kind was done; returns how often each was.

    Kinds that were done more seldom come first, so that all are done about as often.
    """
    happened = {name: 0 for name, _ in ACTS}
    deadline = time.monotonic() + seconds
    while left(sweep) and (time.monotonic() < deadline or not all(happened.values())):
        time.sleep(dice.uniform(*SECONDS_BETWEEN))
        running = cluster.run("squeue", "--noheader", "--partition=low", "--states=R", "--format=%i").stdout.split()
        if not running:
            continue
        name, act = min(dice.sample(ACTS, len(ACTS)), key=lambda kind: happened[kind[0]])
        print(f"{seconds - (deadline - time.monotonic()):6.0f} s  {name}", flush=True)
        try:
            with Faults(cluster) as faults:
                act(faults, dice.choice(running), dice)
        except (CommandFailedError, KeyError, ProcessLookupError, TimeoutError) as error:  # the job ended meanwhile
            print(f"          which met nobody: {str(error).splitlines()[0]}", flush=True)
            continue
        happened[name] += 1
        lend_a_hand(cluster, sweep)
    return happened


def _preempt(faults: Faults, job: str, dice: random.Random) -> None:
    faults.preempt(job, grace_seconds=dice.choice((0, 20)))


def _kill(faults: Faults, job: str, dice: random.Random) -> None:
    faults.kill_rank(job, dice.randrange(2))


def _stop(faults: Faults, job: str, dice: random.Random) -> None:
    faults.stop_rank(job, dice.randrange(2))
    time.sleep(dice.choice((3, 60)))  # a moment, or until a watchdog has found it


def _node_down(faults: Faults, job: str, dice: random.Random) -> None:
    faults.node_down(faults.cluster.job(job)["NodeList"])
    time.sleep(dice.uniform(5, 20))


def _cut(faults: Faults, job: str, dice: random.Random) -> None:
    faults.network_cut(faults.cluster.job(job)["NodeList"])
    time.sleep(dice.choice((5, 60)))


def _restart(faults: Faults, _job: str, dice: random.Random) -> None:
    faults.controller_restart(dice.uniform(0, 10))


def _full(faults: Faults, _job: str, dice: random.Random) -> None:
    faults.full_disk()
    time.sleep(dice.uniform(6, 20))  # a checkpoint is due every five seconds


Act = Callable[[Faults, str, random.Random], None]
ACTS: tuple[tuple[str, Act], ...] = (
    ("preempted", _preempt),
    ("rank killed", _kill),
    ("rank stopped", _stop),
    ("node down", _node_down),
    ("network cut", _cut),
    ("controller restarted", _restart),
    ("disk full", _full),
)


def left(sweep: Path) -> list[str]:
    """The points that have not finished."""
    return [name for name in map(str, range(NODES)) if not (sweep / name / "finished.json").exists()]


def await_end(cluster: SlurmCluster, sweep: Path) -> None:
    """Until all points have finished and the queue is empty, as far as they get there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left(sweep) or queued(cluster)) and time.monotonic() < deadline:
        lend_a_hand(cluster, sweep)
        time.sleep(2)


def queued(cluster: SlurmCluster) -> str:
    """What is left in the queue."""
    return cluster.run("squeue", "--noheader").stdout


def lend_a_hand(cluster: SlurmCluster, sweep: Path) -> None:
    """Do what `hpc status` asks a person to do: resume nodes, release jobs, and send points again that have none."""
    reasons = cluster.run("sinfo", "--noheader", "--partition=low", "--list-reasons", "--format=%N|%E").stdout
    for line in reasons.splitlines():
        if line.endswith("|Duplicate jobid"):
            cluster.run("scontrol", "update", f"nodename={line.partition('|')[0]}", "state=resume", check=False)
    waiting = cluster.run("squeue", "--noheader", "--partition=low", "--states=PD", "--format=%i|%r").stdout
    for line in waiting.splitlines():
        if line.endswith("held"):
            cluster.run("scontrol", "release", line.partition("|")[0], check=False)
    held = cluster.run("squeue", "--noheader", "--array", "--partition=low").stdout.splitlines()
    if len(held) < len(left(sweep)):
        typed(cluster, sys.executable, "-m", "hpc", "retry", str(sweep))


def told(cluster: SlurmCluster, sweep: Path, golden: Path, happened: dict[str, int], began: float) -> str:
    """The report.

    Raises:
        SystemExit: As `main`.
    """
    wrong = [name for name in map(str, range(NODES)) if name in left(sweep) or differences(sweep / name, golden / name)]
    if wrong or queued(cluster):
        stories = [story(cluster, sweep, golden, name) for name in wrong]
        first = f"The queue: {queued(cluster)!r}; done: {happened}; these points are not as they should be:"
        raise SystemExit("\n".join([first, *stories]))
    splits = [split(cluster, sweep, name, began) for name in map(str, range(NODES))]
    names = [part.name for part in fields(Split)]
    lines = [" ".join(f"{name:>10}" for name in ("point", *names, "wall", "ETTR"))]
    for name, each in enumerate(splits):
        figures = (*(getattr(each, part) for part in names), each.wall)
        lines.append(
            " ".join(
                [f"{name:>10}", *(f"{figure:10.1f}" for figure in figures), f"{each.productive / each.wall:10.2f}"]
            )
        )
    text = "\n".join(["All points are bitwise the undisturbed ones; the queue is empty.", str(happened), *lines])
    if not all(happened.values()):
        raise SystemExit(f"{text}\nThey had finished before every kind of fault had met one; ten minutes are enough.")
    return text


def story(cluster: SlurmCluster, sweep: Path, golden: Path, point: str) -> str:
    """What is known of a point that is not as it should be: how it differs, its status, journal and output."""
    told = typed(cluster, sys.executable, "-m", "hpc", "status", str(sweep), point, "--json")
    events = [str(event) for event in read_journal(sweep / point) if not isinstance(event, Committed)]
    jobs = [line["job"] for line in submissions(sweep) if point in line.get("points", ())]
    logs = [path for job in jobs for path in sorted((sweep / "submitit").glob(f"{job}*_log.out"))]
    ends = [f"{path.name}:\n{tail(path, 60)}" for path in logs]
    unlike = [] if point in left(sweep) else differences(sweep / point, golden / point)
    return "\n".join([f"point {point}", *map(str, unlike), told, *events[-40:], *ends])


def submissions(sweep: Path) -> list[dict[str, Any]]:
    """Every line of what was sent, in the order in which it was."""
    return [json.loads(line) for line in (sweep / "submissions.jsonl").read_text().splitlines()]


def split(cluster: SlurmCluster, sweep: Path, point: str, began: float) -> Split:
    """Where the time of one point went, from when it was typed until its last life was over.

    Raises:
        SystemExit: The parts do not add up to that time.
    """
    found, now = Split(), began
    lives = [*allocations(cluster, sweep, point)]
    floor = cluster.options.cred_expire_seconds + 1
    events = read_journal(sweep / point)
    for begin, end in lives:
        waited = max(0.0, begin - now)
        bounded = min(waited, floor) if found.start_up else 0.0
        found.floor, found.queue = found.floor + bounded, found.queue + waited - bounded
        inside = [event for event in events if begin <= event.time <= end + 1]
        marks = [begin]
        for kind in (Started, Resumed):
            marks.append(next((event.time for event in inside if isinstance(event, kind)), end))
        kept = [event for event in inside if isinstance(event, Committed | Finished)]
        useful = max([marks[2], *(min(event.time, end) for event in kept)])
        blocked = sum(event.blocked_seconds for event in kept if isinstance(event, Committed))
        found.start_up += marks[1] - marks[0]
        found.load += marks[2] - marks[1]
        found.blocked += blocked
        found.productive += useful - marks[2] - blocked
        found.redo += end - useful
        now = end
    if abs(found.wall - (now - began)) > 1:
        raise SystemExit(f"The parts of point {point} add up to {found.wall:.1f} s of {now - began:.1f} s: {lives}")
    return found


def allocations(cluster: SlurmCluster, sweep: Path, point: str) -> Iterator[tuple[float, float]]:
    """When each life of a point began and ended by the accounting, oldest first."""
    sent = [line for line in submissions(sweep) if line["event"] == "submitted" and point in line["points"]]
    jobs = [(line, line["points"].index(point)) for line in sent]
    found = []
    for line, index in jobs:
        name = f"{line['job']}_{line.get('first_index', 0) + index}" if line.get("is_array") else line["job"]
        for record in cluster.records(name):
            if "." not in record["JobID"] and record["Start"] not in ("Unknown", "None"):
                found.append((_seconds(record["Start"]), _seconds(record["End"])))
    yield from sorted(found)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    print(main(float(sys.argv[1]) if sys.argv[1:] else 30, int(sys.argv[2]) if sys.argv[2:] else 0))

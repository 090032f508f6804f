"""A job that proves the promises where they count: submitted, told to stop, requeued, and asked what it has seen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc.doctor.finding import JOB, NOTE, OK, PROBLEM, Finding
from hpc.doctor.machine import LITTLE_SHARED_MEMORY
from hpc.doctor.place import SKEW_SECONDS
from hpc.files import read_regular
from hpc.run.events import Committed, Failed, Resumed, Stopped
from hpc.run.journal import read_journal
from hpc.slurm import client
from hpc.status.rows import is_done
from hpc.status.sweep import PointStatus, look

FINDINGS_FILE = "findings.json"
READY_SECONDS, STEP_SECONDS = 60.0, 0.05
"""So long the job waits for the signal, and so long is one of its steps."""
SIGNAL = "USR2"
LOOK_SECONDS = 2.0
VISIBLE_SECONDS = 60.0
"""A network file system may take so long until it shows one node what another has written."""
TARGET = "hpc.doctor.allocation.prove"
SETTINGS = (
    *(f"experiment.target={TARGET}", "experiment.name=doctor", "launch.detach=false", "launch.wait=false"),
    *("launch.snapshot=false", "runtime.trackers=[]", "strategy=ddp", "hardware.time_limit_minutes=10"),
)
"""What is laid over the config that is typed."""


@dataclass(frozen=True)
class RanksTell:
    """What each rank has written.

    Args:
        directory: Where.
        count: How many ranks there are.
    """

    directory: Path
    count: int

    def wait(self) -> list[dict[str, Any] | None]:
        """By rank; None for a file that this node does not see in time."""
        deadline = time.monotonic() + VISIBLE_SECONDS
        while None in (ranks := self._read()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return ranks

    def _read(self) -> list[dict[str, Any] | None]:
        return [self._rank(self.directory / f"rank_{number}.json") for number in range(self.count)]

    @staticmethod
    def _rank(path: Path) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = json.loads(read_regular(path))
        except (OSError, ValueError):
            return None
        return told if "skew_seconds" in told else None


def tell(told: Sequence[Mapping[str, Any] | None]) -> Iterator[Finding]:
    """What the ranks' answers mean; rank 0 asks, in the job."""
    unseen = [str(number) for number, each in enumerate(told) if each is None]
    ranks = [each for each in told if each is not None]
    if unseen:
        advice = "Set run_dir to a directory on a file system that all nodes share."
        yield Finding("shared_files", PROBLEM, f"Rank 0 does not see what ranks {', '.join(unseen)} wrote.", advice)
        return
    hosts = {rank["host"] for rank in ranks}
    yield Finding("ranks", OK, f"{len(ranks)} rank(s) on {len(hosts)} node(s): {', '.join(sorted(hosts))}.")
    yield Finding("shared_files", OK, "Every rank's files are seen by rank 0.")
    yield from (*_exclusive(ranks), *_devices(ranks), *_clocks(ranks), *_shared_memory(ranks), *_network(ranks))


def _exclusive(ranks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    winners = sum(rank["won"] for rank in ranks)
    if winners == 1:
        yield Finding("exclusive_files", OK, "Of all ranks that made one file at once, one has made it.")
    else:
        text = f"{winners} ranks made one file at once (O_EXCL): two lives of a run could not be told apart."
        yield Finding("exclusive_files", PROBLEM, text, "Put run_dir on another file system.")


def _devices(ranks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """That torch sees what Slurm gave, and that nobody shares a GPU."""
    for rank, seen in enumerate(ranks):
        given = [each for each in seen["given"].split(",") if each]
        if len(given) != seen["devices"] and (given or seen["devices"]):
            count = f"{len(given)} GPU(s) ({seen['given'] or 'none'})"
            text = f"Slurm gave rank {rank} {count}, and torch {seen['torch']} sees {seen['devices']}."
            advice = "Install torch for the driver of the nodes; look at cluster.gres and cluster.srun."
            yield Finding("devices", PROBLEM, text, advice)
            return
    uuids = {rank["device"] for rank in ranks if rank["device"]}
    if not uuids:
        yield Finding("devices", OK, f"torch {ranks[0]['torch']} sees no GPU, and Slurm gave none.")
    else:
        yield Finding("devices", OK, f"{len(uuids)} GPU(s), each of one rank: {', '.join(sorted(uuids))}.")


def _clocks(ranks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    worst = max(ranks, key=lambda rank: abs(rank["skew_seconds"]))
    if abs(worst["skew_seconds"]) > SKEW_SECONDS:
        text = f"The clock of {worst['host']} is {abs(worst['skew_seconds']):.0f} s off the file server's."
        yield Finding("clock", NOTE, text, "Times of log lines differ so much; steps decide, not times.")
    else:
        yield Finding("clock", OK, "All nodes and the file server agree on the time.")


def _shared_memory(ranks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    least = min(ranks, key=lambda rank: rank["shared_memory_gb"])
    text = f"{least['host']} has {least['shared_memory_gb']:g} GB free in /dev/shm, the least of all nodes."
    if least["shared_memory_gb"] * 1e9 < LITTLE_SHARED_MEMORY:
        yield Finding("shared_memory", NOTE, text, "In a container, enlarge it (--shm-size); or use data.workers=0.")
    else:
        yield Finding("shared_memory", OK, text)


def _network(ranks: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    speed = ranks[0]["all_reduce_gb_per_second"]
    if speed is not None:
        yield Finding("all_reduce", OK, f"All-reduce among {len(ranks)} ranks: {speed:g} GB/s of bus bandwidth.")


def follow(directory: Path, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Wait for the job, tell it to stop once it trains, and wait until its next life has ended.

    Args:
        directory: Of the submission: one point.
        environ: This process's environment variables, for squeue.

    Raises:
        SlurmError: The signal cannot be sent.
        LoadError: The files of the submission are damaged.
    """
    told, told_at = _point(directory, environ), 0.0
    while not is_done(told.state):
        if not told_at and (Path(told.directory) / "doctor" / FINDINGS_FILE).exists() and told.job is not None:
            told_at = time.time()
            client.ask(["scancel", f"--signal={SIGNAL}", told.job.id])
        time.sleep(LOOK_SECONDS)
        told = _point(directory, environ)
    yield from (replace(finding, about=JOB) for finding in verdict(Path(told.directory), told_at))


def verdict(point: Path, told_at: float) -> Iterator[Finding]:
    """What the job found, and what its journal says of the stop and of what came after.

    Args:
        point: The run directory.
        told_at: When the signal was sent; 0 where it never was.
    """
    try:
        findings = [Finding(**each) for each in json.loads(read_regular(point / "doctor" / FINDINGS_FILE))]
    except (OSError, ValueError, TypeError):
        findings = []
    yield from findings
    events = read_journal(point)
    failed = [event for event in events if isinstance(event, Failed)]
    if not findings or not told_at:
        reason = failed[0].reason if failed else "its log says why"
        advice = f"`hpc logs {point.parent}` shows what it wrote."
        yield Finding("canary", PROBLEM, f"The job ended before it could say what it sees: {reason}.", advice)
        return
    yield from _handed_over(events, told_at)


def _handed_over(events: Sequence[object], told_at: float) -> Iterator[Finding]:
    stops = [event for event in events if isinstance(event, Stopped) and event.time >= told_at - 1]
    saves = [event for event in events if isinstance(event, Committed)]
    later = [event for event in events if isinstance(event, Resumed) and event.step]
    if not stops:
        text, advice = f"Python never saw SIG{SIGNAL}.", "The clock stops runs before their time limit all the same."
        yield Finding("signal", PROBLEM, text, advice)
        return
    text = f"SIG{SIGNAL} reached Python; the run stopped at step {stops[0].step} after {stops[0].time - told_at:.1f} s"
    yield Finding("signal", OK, f"{text}, and its save took {saves[-1].seconds if saves else 0:.2f} s.")
    if later and later[0].step == stops[0].step:
        waited = later[0].time - stops[0].time
        yield Finding("requeue", OK, f"The job was requeued, and went on at step {later[0].step} {waited:.0f} s later.")
    else:
        advice = "The batch log says what scontrol answered; `hpc resume` goes on by hand."
        yield Finding("requeue", PROBLEM, "The job saved its state, and no further life went on from there.", advice)


def _point(directory: Path, environ: Mapping[str, str]) -> PointStatus:
    """Where the one point stands; a controller that does not answer is asked again."""
    while True:
        status = look(directory, environ)
        if not status.problem or is_done(status.points[0].state):
            return status.points[0]
        time.sleep(LOOK_SECONDS)

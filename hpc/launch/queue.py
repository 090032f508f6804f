"""Runs the points of a sweep on this machine, as many at once as fit, until each has come to an end.

What follows from the end of an attempt is what follows on a cluster: a new one after a stop that saved, and after a
crash, within a budget. A point that failed does not keep later points from running. A first stop of the queue lets
every point save and starts no other; a second one ends all at once.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.errors import EXIT_CONTINUE, EXIT_INTERRUPTED
from hpc.files import read_regular
from hpc.launch.demand import Demand, demand_of, has_room, limit_of, most_at_once
from hpc.launch.ending import Ending, ending
from hpc.launch.leases import lease
from hpc.launch.machine import Machine
from hpc.launch.record import Record
from hpc.launch.relay import Relay
from hpc.launch.running import Running
from hpc.launch.signals import StopSignals
from hpc.run.directory import RunDirectory
from hpc.run.grace import first_grace_seconds
from hpc.run.point import Point
from hpc.run.queue import CANCELLED, FAILED, FINISHED, STOPPED, WAITING, QueueFiles, read_queue
from hpc.say import error, say, warn
from hpc.slurm.why import CRASH

POLL_SECONDS = 0.2
BY_SIGNAL = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL))
"""What a rank that was told to stop ends with when it could not save, because it had not begun or does not listen."""


@dataclass(frozen=True)
class Place:
    """Where points run.

    Args:
        machine: What it has.
        leases: Where it is written which GPUs are taken.
        shows: Whether what the points print is shown, too.
    """

    machine: Machine
    leases: Path
    shows: bool = True


class Queue:
    """The points of a sweep that are still to be run, and those that are under way.

    Args:
        record: The sweep's, claimed by this process.
        points: To run, in this order.
        place: Where.
    """

    def __init__(self, record: Record, points: Sequence[Point], place: Place) -> None:
        self.record, self.place = record, place
        self.points, self.waiting, self.running = list(points), list(points), list[Running]()
        self.demands = {point.name: demand_of(point.settings, place.machine) for point in points}
        self.limit = min(map(limit_of, (point.settings for point in points)), default=1)
        self.at_once = most_at_once(list(self.demands.values()), self.limit, place.machine)
        self.states: dict[str, str] = {}
        self.codes: dict[str, int] = {}
        past = read_queue(record.sweep)
        self.attempts = {} if past is None else {name: each.attempt for name, each in past.points.items()}
        self.stops = 0
        self._common = set.intersection(*(set(point.overrides) for point in points)) if len(points) > 1 else set()
        self._has_said_what_it_waits_for = False

    def run(self, has_begun: Callable[[], object] = lambda: None) -> int:
        """Run every point to its end; returns the exit code of the whole.

        Args:
            has_begun: Called once the record names this queue.
        """
        with StopSignals() as signals:
            self.record.opened([point.name for point in self.points])
            has_begun()
            try:
                while self.running or (self.waiting and not self.stops):
                    self._stop(signals.taken())
                    self._cancel(self.record.cancelled())
                    self._start_what_fits()
                    time.sleep(POLL_SECONDS)
                    self._look_after()
            finally:
                for running in self.running:
                    running.abandon()
            for point in self.waiting:
                self._settle(point, None, STOPPED)
            code = self._code()
            self.record.closed(code)
        return code

    def _start_what_fits(self) -> None:
        """In order; a point that fits now passes one that has to wait for more than is free."""
        full: set[Demand] = set()
        for point in [*self.waiting]:
            demand, running = self.demands[point.name], [each.demand for each in self.running]
            if self.stops or len(running) >= self.limit:
                return
            if demand not in full and not (has_room(demand, running, self.place.machine) and self._start(point)):
                full.add(demand)
        if full and not self.running and not self._has_said_what_it_waits_for:
            self._has_said_what_it_waits_for = True
            say(f"Point {self.waiting[0].name} waits for GPUs, which another sweep of yours has.")

    def _start(self, point: Point) -> bool:
        """Start a point, unless GPUs that it needs are taken."""
        demand, number = self.demands[point.name], self.attempts.get(point.name, 0) + 1
        gpus = lease(self.place.machine.gpus, demand.gpus, self.place.leases)
        if gpus is None:
            return False
        sweep, threads = self.record.sweep, self._threads(point)
        running = Running(self.record, point, number, demand, gpus, threads)
        if self.place.shows:
            running.relay = Relay(running.log, f"[{point.name}] " if self.at_once > 1 else "")
        self.waiting.remove(point)
        self.running.append(running)
        self.attempts[point.name] = number
        self.record.started(point.name, number, running.job, running.process.pid, running.gpus)
        on = f" on {', '.join(running.gpus)}" if running.gpus else ""
        again = f", attempt {number}" if number > 1 else ""
        say(f"Point {point.name}{again}: {demand.ranks} rank(s) here{on}, in {sweep / point.name}{self._typed(point)}")
        return True

    def _typed(self, point: Point) -> str:
        """What was typed for this point and not for all."""
        own = [each for each in point.overrides if each not in self._common]
        return f" ({' '.join(own)})" if own and self._common else ""

    def _threads(self, point: Point) -> int | None:
        """A fair share of the CPUs for each rank; None where a point is alone here, and its ranks share them."""
        if self.at_once <= 1:
            return None
        share = max(1, self.place.machine.cpus // (self.at_once * self.demands[point.name].ranks))
        return min(share, point.settings.hardware.cpus_per_task or share)

    def _look_after(self) -> None:
        for running in [*self.running]:
            running.keep_time()
            code = running.code()
            if running.relay is not None:
                running.relay.show(is_last=code is not None)
            if code is not None:
                self.running.remove(running)
                self._ended(running, code)

    def _ended(self, running: Running, code: int) -> None:
        point, end = running.point, self._ending(running, code)
        state = FINISHED if end is None else self._state_after(running, end)
        self._settle(point, code if end is None else end.code, state)
        if end is None:
            done = sum(each == FINISHED for each in self.states.values())
            say(f"Point {point.name} finished, {done} of {len(self.points)}.")
        elif state == WAITING:
            self.waiting.insert(0, point)
            if end.verdict.budget == CRASH:
                self._tell_what_failed(running)
            say(f"Point {point.name} {end.verdict.phrase}, and goes on in another attempt.")
        elif state == FAILED:
            self._explain(running, end)
        else:
            saved = "after saving" if code == EXIT_CONTINUE else f"with exit code {code}"
            warn(f"Point {point.name} {state} {saved}.")

    def _ending(self, running: Running, code: int) -> Ending | None:
        """None where the point has finished."""
        if code == 0:
            return None
        directory, settings = self.record.sweep / running.point.name, running.point.settings
        is_told_to_end = running.is_cancelled or bool(self.stops)
        return ending(directory, running.job, settings, code, is_told_to_end, running.is_out_of_time)

    def _state_after(self, running: Running, end: Ending) -> str:
        is_ended_by_us = end.code == EXIT_CONTINUE or end.code in BY_SIGNAL
        if is_ended_by_us and (running.is_cancelled or self.stops):
            return CANCELLED if running.is_cancelled else STOPPED
        return WAITING if end.goes_on else FAILED

    def _tell_what_failed(self, running: Running) -> None:
        """What is known of the rank that failed first."""
        directory = RunDirectory(self.record.sweep / running.point.name)
        for path in directory.failures.glob(f"*{running.job}*.txt"):
            with contextlib.suppress(OSError):  # what follows tells where the logs are
                error(read_regular(path).decode(errors="replace").removeprefix("hpc: ").rstrip("\n"))

    def _explain(self, running: Running, end: Ending) -> None:
        """Why the point has failed, and where there is more."""
        self._tell_what_failed(running)
        logs = shlex.quote(str(QueueFiles(self.record.sweep).log(running.job)))
        limit = f", and {end.limit}" if end.limit else ""
        error(f"Point {running.point.name} ended with exit code {end.code}{limit}; its log: {logs}")

    def _stop(self, received: set[int]) -> None:
        """The first stop is passed on as it came; SIGHUP only is no second one, because it follows others by itself."""
        if not received or (self.stops and received == {signal.SIGHUP}):
            return
        self.stops += 1
        for running in self.running:
            if self.stops > 1:
                running.signal(signal.SIGKILL)
            elif signal.SIGINT in received:
                running.signal(signal.SIGINT)
            else:
                settings = running.point.settings
                running.end(first_grace_seconds(settings.cluster, settings.hardware))
        if self.stops == 1 and self.running:
            with_terminal = "; Ctrl-C again ends them at once" if signal.SIGINT in received else ""
            warn(f"Stopping: {len(self.running)} point(s) save and end{with_terminal}.")

    def _cancel(self, names: Sequence[str]) -> None:
        for running in self.running:
            if running.point.name in names and not running.is_cancelled:
                running.is_cancelled = True
                running.end()
        for point in [point for point in self.waiting if point.name in names]:
            self.waiting.remove(point)
            self._settle(point, None, CANCELLED)
            warn(f"Point {point.name} cancelled before it started.")

    def _settle(self, point: Point, code: int | None, state: str) -> None:
        self.states[point.name] = state
        if code is not None:
            self.codes[point.name] = code
        self.record.ended(point.name, self.attempts.get(point.name, 0), code, state)

    def _code(self) -> int:
        """That of the first point, in the sweep's order, that failed; else whether something is left to be done."""
        failed = [self.codes[point.name] for point in self.points if self.states[point.name] == FAILED]
        if self.stops > 1:
            return EXIT_INTERRUPTED
        is_done = all(state == FINISHED for state in self.states.values())
        if self.stops and not is_done:
            warn("Stopped; the same command goes on from here.")
        return failed[0] if failed else 0 if is_done else EXIT_CONTINUE

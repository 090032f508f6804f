"""Sweeps that this machine's queue runs, each queue in a process of its own: `python -m tests.support.local_sweep`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from hpc.files import replace_text
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.processes import is_running
from hpc.run.queue import LocalQueue, read_queue
from tests.conftest import clean_environment

PATIENCE_SECONDS = 120.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until it is so.

    Raises:
        TimeoutError: It takes very long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class LocalSweep:
    """A sweep of `tests.programs.queued`, and the processes that were its queue.

    Args:
        directory: The sweep's.
        trace: Where points say that they run, and are told what to do.
        environ: Of the queue, besides a clean one.
        processes: Queues that were started, the newest last.
    """

    directory: Path
    trace: Path
    environ: Mapping[str, str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, points: int = 1, launch: Mapping[str, Any] | None = None, **config: Any) -> subprocess.Popen[str]:
        """The command that submits these points."""
        sections = {"launch": {"snapshot": False, **(launch or {})}, "trace": str(self.trace), **config}
        order = {"directory": str(self.directory), "points": points, "config": sections}
        self.trace.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.local_sweep", json.dumps(order)],
            env=clean_environment(**self.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def told(self, point: int, attempt: int = 1) -> dict[str, Any]:
        """What an attempt said of itself, once it has."""
        path = self.trace / f"{point}.{attempt}.json"
        wait_for(lambda: path.exists() or self.processes[-1].poll(), f"{path} is there")
        if not path.exists():
            raise RuntimeError(self.end()[1])
        return dict(json.loads(path.read_text()))

    def order(self, point: int, attempt: int = 1, code: int = 0) -> None:
        """Let an attempt end with this code."""
        replace_text(self.trace / f"{point}.{attempt}.go", str(code))

    def end(self) -> tuple[int, str]:
        """The exit code of the newest command, and everything that it said."""
        output = self.processes[-1].communicate(timeout=PATIENCE_SECONDS)[0]
        return self.processes[-1].returncode, output

    @property
    def queue(self) -> LocalQueue:
        """What is recorded of it."""
        queue = read_queue(self.directory)
        assert queue is not None
        return queue

    @property
    def states(self) -> list[str]:
        """Of its points, in order."""
        return [self.queue.points[name].state for name in sorted(self.queue.points, key=int)]

    def clean_up(self) -> None:
        """End what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        queue = read_queue(self.directory)
        for each in (queue.process, *(point.process for point in queue.points.values())) if queue else ():
            if each is not None and is_running(each):
                psutil.Process(each.pid).kill()


def main(text: str) -> None:
    """Submit the points of an order."""
    from hpc.errors import HpcError
    from hpc.launch.dispatch import submit
    from hpc.say import fail

    order = json.loads(text)
    directory = Path(order["directory"])
    fixed = {"experiment": {"target": "tests.programs.queued.train"}, "cluster": {"scheduler": "local"}}
    points = [
        Point(str(number), (f"number={number}",), _merged(fixed, order["config"], {"run_dir": f"{directory}/{number}"}))
        for number in range(order["points"])
    ]
    try:
        submit(Sweep(directory, tuple(points)))
    except HpcError as error:
        fail(error)
        sys.exit(error.exit_code)


def _merged(*configs: Mapping[str, Any]) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for config in configs:
        for key, value in config.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, Mapping) else value
    return merged


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A sweep with a past: lives with times of their own, curves, failures, and names that HTML would take for its own."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hpc.run.directory import RunDirectory
from hpc.run.events import Committed, Event, Failed, Finished, Resumed, Started, Stopped, to_line
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.result import write_result
from hpc.run.submissions import Submission, record_submission
from tests.support.sweeps import CONFIG

BEGAN = 1_790_000_000.0
HOSTILE = "'</script><img src=x onerror=document.title=1><b>bold</b>'"
"""A value that ends a script, starts an element and looks like Plotly's markup, as it can be typed."""
REASON = "RuntimeError: <i>CUDA</i> error: device-side assert triggered"
TRACEBACK = f"hpc: rank 3 of 8 on node7 failed first:\nTraceback (most recent call last):\n{REASON}\n"
STEPS = 200


def reported_sweep(directory: Path, count: int, gpus: int = 8) -> Path:
    """Points that differ in three overrides: most finish, some after a preemption or a crash; every seventh fails."""
    chance = random.Random(count)
    points = [_point(number, gpus) for number in range(count)]
    Sweep(directory, tuple(points)).write()
    record_submission(directory, Submission("100", tuple(point.name for point in points), BEGAN, is_array=True))
    for number, point in enumerate(points):
        _live(RunDirectory(directory / point.name), number, chance)
    return directory


def _point(number: int, gpus: int) -> Point:
    lr = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)[number % 5]
    name = ("plain", HOSTILE)[number // 5 % 2]
    seed = number // 10
    config = {**CONFIG, "hardware": {**CONFIG["hardware"], "nodes": 1, "gpus_per_node": gpus, "gpu_type": "a100"}}
    overrides = (f"optimizer.lr={lr:g}", f"note={name}", f"seed={seed}", "hardware=8xA100")
    return Point(str(number), overrides, {**config, "optimizer": {"lr": lr}, "note": name, "seed": seed})


def _live(run: RunDirectory, number: int, chance: random.Random) -> None:
    run.path.mkdir()
    waited = chance.uniform(60, 1500) * (1 + number / 400)
    for life, events in enumerate(_lives(number, BEGAN + waited, chance)):
        run.journal.mkdir(exist_ok=True)
        attempt = f"linux.100_{number}-{life}.0"
        lines = [to_line(replace(event, attempt=attempt)) for event in events]
        (run.journal / f"{attempt}.jsonl").write_text("".join(lines))
        for event in events:
            if isinstance(event, Failed):
                run.failures.mkdir(exist_ok=True)
                run.failure(attempt).with_suffix(".txt").write_text(TRACEBACK)
            if isinstance(event, Finished):
                write_result(run.path, event.value)
    lr = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)[number % 5]
    floor = 1.5 + abs(math.log10(lr) + 3) + chance.gauss(0, 0.1)
    rows = [_row(step, floor, chance) for step in range(1, STEPS + 1)]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _row(step: int, floor: float, chance: random.Random) -> dict[str, float]:
    loss = floor + 6 * math.exp(-step / 40) + chance.gauss(0, 0.05)
    return {
        "step": step,
        "loss": round(loss, 4),
        "accuracy": round(1 / (1 + loss / 2), 4),
        "grad_norm": round(abs(loss), 4),
    }


def _lives(number: int, begin: float, chance: random.Random) -> Iterator[list[Event]]:
    """Each with its times: 60 s to start up, a save of 90 s that blocks for 20 every half hour."""
    count = 1 + (number % 3 == 1) + (number % 7 == 3)
    for life in range(count):
        hours = chance.uniform(0.8, 2.5)
        end = begin + 3600 * hours
        saves = [begin + 60 + 1800 * n for n in range(1, int(hours * 2))]
        events: list[Event] = [Started("slurm", 8, ("node1",), time=begin), Resumed(50 * life, time=begin + 60)]
        events += [Committed(50 * life + n + 1, 90.0, 20.0, time=at) for n, at in enumerate(saves)]
        yield [*events, _end(number, life, count, end)]
        begin = end + chance.uniform(60, 2400)


def _end(number: int, life: int, count: int, time: float) -> Event:
    if life + 1 < count and number % 7 != 3:
        return Stopped(50 * life + 50, "SIGTERM", time=time)
    if life + 1 < count or number % 7 == 5:
        return Failed(3, 1, REASON, time=time)
    return Finished(0.5, time=time)

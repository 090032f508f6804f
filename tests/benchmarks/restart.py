"""How long does a run that begins again take until its first new step, and what of?

    python -m tests.benchmarks.restart [REPEATS]

Queue and Slurm's own delay are left out: what a batch script starts is started here by hand. A run is stopped by a
signal and goes on, again and again. `import torch` alone, in a process of its own, is measured in turns with it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from hpc.run.events import Resumed, Started
from tests.conftest import ROOT, clean_environment
from tests.support.events import told

STEPS_OF_A_LIFE = 3
PATIENCE_SECONDS = 300
JOB = (
    "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1", "experiment.target=tests.programs.jobs.train",
    "steps=1000000", "checkpoint.every_steps=1000000",
)  # fmt: skip
PARTS = ("until its ranks are known", "building and loading", "the first new step")


def main(repeats: int = 5) -> str:
    """Measure, and tell the medians as a text."""
    with tempfile.TemporaryDirectory(prefix="restart-") as name:
        directory = Path(name)
        a_life(directory)
        lives, imports = [], []
        for _ in range(repeats):
            imports.append(import_torch())
            lives.append(a_life(directory))
    lines = [f"{what:36} {median(life[n] for life in lives):6.2f} s" for n, what in enumerate(PARTS)]
    beyond = [sum(life) - life[1] - alone for life, alone in zip(lives, imports, strict=True)]
    return "\n".join(
        [
            *lines,
            f"{'together':36} {median(map(sum, lives)):6.2f} s",
            f"{'`import torch` alone':36} {median(imports):6.2f} s",
            f"{'beyond `import torch` and loading':36} {median(beyond):6.2f} s (least {min(beyond):.2f} s)",
        ]
    )


def import_torch() -> float:
    """Seconds for a Python that does nothing else."""
    began = time.time()
    subprocess.run(
        [sys.executable, "-c", "import torch"], env=clean_environment(), timeout=PATIENCE_SECONDS, check=True
    )
    return time.time() - began


def a_life(directory: Path) -> tuple[float, float, float]:
    """Let the run take some steps and stop it; returns the seconds of PARTS."""
    trace, settings = directory / "trace", f"+job={{step_seconds:0.05,trace:'{directory}/trace'}}"
    before = step_in(trace)
    began = time.time()
    command = [sys.executable, str(ROOT / "run.py"), *JOB, settings, f"run_dir={directory}/run"]
    process = subprocess.Popen(
        command, cwd=directory, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first = wait_for_step(process, trace, before + 1)
    wait_for_step(process, trace, before + STEPS_OF_A_LIFE)
    process.send_signal(signal.SIGUSR2)
    process.wait(PATIENCE_SECONDS)
    started = max(event.time for event in told(directory / "run", Started))
    resumed = max(event.time for event in told(directory / "run", Resumed))
    return started - began, resumed - started, first - resumed


def wait_for_step(process: subprocess.Popen[bytes], trace: Path, step: int) -> float:
    """When rank 0 was seen in a step.

    Raises:
        RuntimeError: The run ended instead, or is too slow.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while step_in(trace) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"step {step} was not reached; the run's exit code is {process.poll()}")
        time.sleep(0.002)
    return time.time()


def step_in(trace: Path) -> int:
    """That rank 0 is in; 0 where it has not told yet."""
    path = trace / "rank_0.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


if __name__ == "__main__":
    print(main(int(sys.argv[1]) if sys.argv[1:] else 5))

"""How long does a run that begins again take until its first new step, and what of?

    python -m tests.benchmarks.restart [REPEATS]

Queue and Slurm's own delay are left out: what a batch script starts is started here by hand. A run is stopped by a
signal and goes on, again and again. `import torch` alone, and a loop without hpc, are measured in turns with it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from hpc.run.events import Resumed, Started
from tests.conftest import ROOT, clean_environment
from tests.support.events import told

STEPS_OF_A_LIFE = 3
PATIENCE_SECONDS = 300
JOB = (
    "hardware=cpu", "hardware.nodes=1", "hardware.tasks_per_node=1", "experiment.target=tests.programs.jobs.train",
    "steps=1000000", "checkpoint.every_steps=1000000",
)  # fmt: skip
PARTS = ("until its ranks are known", "importing torch, building, loading", "the first new step")


@dataclass(frozen=True)
class Life:
    """What a life took until its first new step.

    Args:
        parts: Seconds of PARTS.
        cpu_seconds: Of the processor, which a busy machine changes less.
    """

    parts: tuple[float, float, float]
    cpu_seconds: float


def main(repeats: int = 5) -> str:
    """Measure, and tell the medians as a text. The model is small: what a checkpoint takes to load is not in it."""
    with tempfile.TemporaryDirectory(prefix="restart-") as name:
        directory = Path(name)
        first_life(directory)
        lives, imports, plain = [], [], []
        for _ in range(repeats):
            imports.append(import_torch())
            plain.append(plain_loop())
            lives.append(a_life(directory))
    rows = [(what, median(life.parts[n] for life in lives)) for n, what in enumerate(PARTS)]
    seconds = [sum(life.parts) for life in lives]
    rows += [
        ("together", median(seconds)),
        ("`import torch` alone", median(wall for wall, _ in imports)),
        ("beyond it", median(all_of_it - alone for all_of_it, (alone, _) in zip(seconds, imports, strict=True))),
        ("together, of the processor", median(life.cpu_seconds for life in lives)),
        ("`import torch` alone, likewise", median(cpu for _, cpu in imports)),
        ("a plain loop's first step, likewise", median(cpu for _, cpu in plain)),
        ("beyond that", median(life.cpu_seconds - cpu for life, (_, cpu) in zip(lives, plain, strict=True))),
    ]
    return "\n".join(f"{what:36} {figure:6.2f} s" for what, figure in rows)


def import_torch() -> tuple[float, float]:
    """Seconds, and seconds of the processor, for a Python that does nothing else."""
    return a_program("import torch")


def plain_loop() -> tuple[float, float]:
    """The same for what any loop in torch does until its first step: the first optimizer imports as much again."""
    return a_program(
        "import torch; model = torch.nn.Linear(16, 4); optimizer = torch.optim.AdamW(model.parameters()); "
        "model(torch.ones(4, 16)).sum().backward(); optimizer.step()"
    )


def a_program(text: str) -> tuple[float, float]:
    """Seconds, and seconds of the processor, for a Python that runs it."""
    command = [sys.executable, "-c", f"{text}; import os; print(sum(os.times()[:2]))"]
    began = time.time()
    done = subprocess.run(
        command, env=clean_environment(), timeout=PATIENCE_SECONDS, check=True, capture_output=True, text=True
    )
    return time.time() - began, float(done.stdout)


def first_life(directory: Path) -> None:
    """Freeze a sweep of one point, and let it take some steps."""
    settings = f"+job={{step_seconds:0.05,trace:'{directory}/trace'}}"
    words = ("-m", "cluster=local", *JOB, settings, f"run_dir={directory}/run")
    a_process(directory, signal.SIGINT, str(ROOT / "run.py"), *words)


def a_life(directory: Path) -> Life:
    """Begin what a batch script begins, and let it take some steps."""
    began, first, cpu = a_process(
        directory, signal.SIGUSR2, "-m", "hpc.submit.payload", f"{directory}/run", "0", "owner"
    )
    started = max(event.time for event in told(directory / "run" / "0", Started))
    resumed = max(event.time for event in told(directory / "run" / "0", Resumed))
    return Life((started - began, resumed - started, first - resumed), cpu)


def a_process(directory: Path, end: signal.Signals, *words: str) -> tuple[float, float, float]:
    """Run python until it took some new steps, and end it by a signal.

    Returns:
        When it began, when its first new step did, and how many seconds of the processor it had used by then.
    """
    trace = directory / "trace"
    before, began = step_in(trace), time.time()
    with (directory / "output").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=directory, env=clean_environment(), stdout=output, stderr=output
        )
    first = wait_for_step(process, trace, before + 1)
    used = psutil.Process(process.pid).cpu_times()
    wait_for_step(process, trace, before + STEPS_OF_A_LIFE)
    process.send_signal(end)
    process.wait(PATIENCE_SECONDS)
    return began, first, used.user + used.system


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

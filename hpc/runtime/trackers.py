"""What is written down while training: every step in metrics.jsonl, the latest values in TensorBoard and on screen.

metrics.jsonl holds only what the training function logged, so that it is the same, byte for byte, however often the
run was interrupted. Times and speeds go to TensorBoard and the screen.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
LINE_SECONDS = 10.0
"""Between two progress lines where there is no terminal."""

Values = dict[str, float]


class Metrics:
    """One JSON object per step that logged something, and TensorBoard beside it.

    Args:
        directory: The point's.
        step: The step training goes on from; what was written after it is dropped, because it is trained again.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self.path = directory / METRICS_FILE
        _rewind(self.path, step)
        self._file = self.path.open("a")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)
        self._rows: list[tuple[int, dict[str, Any]]] = []

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Remember values of a step, as they are now; those on a GPU are read by `flush`, because reading one waits."""
        held = {name: _held(value) for name, value in values.items()}
        if self._rows and self._rows[-1][0] == step:
            self._rows[-1][1].update(held)
        else:
            self._rows.append((step, held))

    def flush(self) -> Values:
        """Write down what was logged; returns the newest value of every name."""
        latest: Values = {}
        lines = []
        for step, held in self._rows:
            row = {name: float(value) for name, value in held.items()}
            lines.append(json.dumps({"step": step, **row}) + "\n")
            latest.update(row)
        self._file.write("".join(lines))
        for name, value in latest.items():
            self._board.add_scalar(name, value, self._rows[-1][0])
        self._file.flush()
        self._rows.clear()
        return latest

    def speed(self, name: str, per_second: float, step: int) -> None:
        """Note how fast it goes; not part of metrics.jsonl."""
        self._board.add_scalar(name, per_second, step)

    def close(self) -> None:
        """Write down the rest and make it durable."""
        self.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._board.close()


class Progress:
    """A bar on a terminal, plain lines in a log.

    Args:
        total: Steps in all.
        step: Steps done in earlier lives.
        unit: What is counted per second: tokens or samples.
    """

    def __init__(self, total: int, step: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.started, self.first_step = time.monotonic(), step
        self._last_line = self.started
        self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def show(self, step: int, values: Values, per_second: float) -> None:
        """Say where the run is."""
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        speed = f"{per_second:,.0f} {self.unit}/s"
        if self._bar is not None:
            self._bar.set_postfix({**shown, "speed": speed}, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._last_line >= LINE_SECONDS or step == self.total:
            self._last_line = time.monotonic()
            words = "  ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {step}/{self.total}  {words}  {speed}  {self._left(step)} left", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _left(self, step: int) -> str:
        per_step = (time.monotonic() - self.started) / max(1, step - self.first_step)
        return str(tqdm.format_interval((self.total - step) * per_step))


def _held(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return float(value)
    return value.item() if value.is_cpu else value.detach().clone()  # the loop may go on adding to it


def _rewind(path: Path, step: int) -> None:
    """Drop the rows after `step`, and a last line that a crash cut short."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if _is_up_to(line, step)]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def _is_up_to(line: str, step: int) -> bool:
    try:
        return line.endswith("\n") and int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError):
        return False

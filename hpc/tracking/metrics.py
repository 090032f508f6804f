"""What has the training function logged? metrics.jsonl has a row for every step that logged something.

It has nothing else, no times for example, so that its bytes do not depend on how often the run was interrupted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hpc.errors import SaveError
from hpc.files import open_to_append, read_regular, replace_bytes
from hpc.run.directory import RunDirectory

Values = dict[str, float]


class NotFinite(NamedTuple):
    """A logged value that is not finite, which means that training has diverged."""

    step: int
    name: str
    value: float


class _Row(NamedTuple):
    step: int
    held: dict[str, Any]
    skipped: bool
    in_step: bool


class Metrics:
    """One JSON object per step that logged something.

    Args:
        directory: The point's.
        step: The step that training goes on from. Rows of later steps are dropped, because these are trained again.
        size_bytes: Size of the file when that step was saved; None where it is not known.
        must_be_finite: Names of values that must be finite.

    Raises:
        SaveError: The file cannot be written.
    """

    def __init__(
        self, directory: Path, step: int, size_bytes: int | None = None, must_be_finite: Sequence[str] = ()
    ) -> None:
        self.path = RunDirectory(directory).metrics
        self.must_be_finite = must_be_finite
        self.not_finite: NotFinite | None = None
        try:
            _rewind(self.path, step, size_bytes)
            self._file = open_to_append(self.path)
        except OSError as error:
            raise SaveError(
                f"{self.path} must be a file that can be written, but is not: {error.strerror}; make room there, or "
                "choose another run_dir."
            ) from error
        self._rows: list[_Row] = []

    def log(self, step: int, values: dict[str, Any], skipped: bool = False, in_step: bool = True) -> None:
        """Remember values of a step, as they are now. Those on a GPU are read by `flush`, because reading one waits.

        Args:
            step: Which step.
            values: Numbers, or tensors of one element.
            skipped: Loss scaling skipped the step because of an infinite gradient, which is not a divergence.
            in_step: Whether the step is being taken; what is logged after it gets a row of its own.
        """
        held = {name: _held(value) for name, value in values.items()}
        if self._rows and self._rows[-1].step == step and self._rows[-1].in_step == in_step:
            self._rows[-1].held.update(held)
        else:
            self._rows.append(_Row(step, held, skipped, in_step))

    def size_bytes(self) -> int:
        """Size of the file, with everything that `flush` has written."""
        return self._file.tell()

    def flush(self) -> Values:
        """Write what was logged and check that it is finite; returns the newest value of every name."""
        latest: Values = {}
        lines = []
        for row in self._rows:
            values = {name: float(value) for name, value in row.held.items()}
            lines.append(json.dumps({"step": row.step, **values}) + "\n")
            latest.update(values)
            if self.not_finite is None and not row.skipped:
                self.not_finite = self._first_not_finite(row.step, values)
        self._file.write("".join(lines).encode())
        self._file.flush()
        self._rows.clear()
        return latest

    def close(self) -> None:
        """Write the rest and make it durable."""
        self.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _first_not_finite(self, step: int, values: Values) -> NotFinite | None:
        for name in self.must_be_finite:
            if not math.isfinite(values.get(name, 0.0)):
                return NotFinite(step, name, values[name])
        return None


def _held(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return float(value)
    return (
        value.item() if value.is_cpu else value.detach().clone()
    )  # a copy, because the loop may go on adding to the tensor


def _rewind(path: Path, step: int, size_bytes: int | None) -> None:
    """Drop what was written after `step` was saved, and a last line that a crash cut short."""
    if not path.exists():
        return
    kept = [line for line in read_regular(path)[:size_bytes].splitlines(keepends=True) if _is_up_to(line, step)]
    replace_bytes(path, b"".join(kept))


def _is_up_to(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError):
        return False

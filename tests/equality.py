"""Whether two runs are the same run, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpc.checkpoint.store import CheckpointStore

FILES = ("model.pt", "optimizer.pt", "trainer.pt")


def differences(first: Path, second: Path) -> list[str]:
    """Where the newest checkpoints and the metrics of two point directories differ; an empty list is equality."""
    found = (
        [] if (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes() else ["metrics.jsonl"]
    )
    left, right = (CheckpointStore(path / "checkpoints", keep=1).latest(found.append) for path in (first, second))
    if left is None or right is None or left.step != right.step:
        return [*found, f"newest checkpoints {left} and {right}"]
    for name in FILES:
        contents = [torch.load(each.directory / name, weights_only=True) for each in (left, right)]
        found += _compare(name, *contents)
    return found


def _compare(place: str, left: Any, right: Any) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [each for key in left for each in _compare(f"{place}/{key}", left[key], right[key])]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        return [each for n in range(len(left)) for each in _compare(f"{place}/{n}", left[n], right[n])]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if torch.equal(left, right) else [place]
    return [] if left == right else [place]

"""Whether two runs are the same run, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpc.checkpoint.manifest import TRAINER_FILE
from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.checkpoint.untrusted import read_manifest


def differences(first: Path, second: Path) -> list[str]:
    """Where the newest checkpoints and the metrics of two point directories differ; an empty list is equality."""
    found = (
        [] if (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes() else ["metrics.jsonl"]
    )
    left, right = (CheckpointStore(path / "checkpoints").latest(found.append) for path in (first, second))
    if left is None or right is None or left.step != right.step:
        return [*found, f"newest checkpoints {left} and {right}"]
    return found + _differing_tensors(left, right) + _differing_trainers(left, right)


def _differing_tensors(left: Checkpoint, right: Checkpoint) -> list[str]:
    """Same tensors, same files, same checksums: a file of tensors holds nothing else."""
    parts = [read_manifest(each.directory).written for each in (left, right)]
    files = [{name: each for name, each in part.files.items() if name != TRAINER_FILE} for part in parts]
    names = files[0].keys() | files[1].keys()
    found = [name for name in sorted(names) if files[0].get(name) != files[1].get(name)]
    return found + (["tensors"] if parts[0].tensors != parts[1].tensors else [])


def _differing_trainers(left: Checkpoint, right: Checkpoint) -> list[str]:
    contents = [torch.load(each.directory / TRAINER_FILE, weights_only=True) for each in (left, right)]
    return _compare(TRAINER_FILE, *contents)


def _compare(place: str, left: Any, right: Any) -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [each for key in left for each in _compare(f"{place}/{key}", left[key], right[key])]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        return [each for n in range(len(left)) for each in _compare(f"{place}/{n}", left[n], right[n])]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if torch.equal(left, right) else [place]
    return [] if left == right else [place]

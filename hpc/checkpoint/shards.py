"""Which part of a tensor lies on this rank, and which ranks write it?

A plain tensor is alike on all ranks: rank 0 writes it. Of a DTensor each rank holds a box, and the first of those
that hold the same box writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hpc.errors import SaveError

ALL_RANKS = "all"


@dataclass(frozen=True)
class Part:
    """A box of a tensor, as it lies on this rank.

    Args:
        tensor: The box; shares memory with what it is part of.
        shape: Of the whole tensor.
        offsets: Where in the whole tensor the box begins, per dimension.
        is_written: Whether this rank writes it.
        shared_by: The same on all ranks that hold this box, and on no other; empty where one rank alone holds it.
    """

    tensor: torch.Tensor
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    is_written: bool
    shared_by: str = ""


def part_of(tensor: torch.Tensor, rank: int) -> Part:
    """This rank's part of a tensor.

    Raises:
        SaveError: The tensor is spread over the ranks in a way that is not a box each.
    """
    tensor = tensor.detach()
    if not is_distributed(tensor):
        return Part(tensor, tuple(tensor.shape), (0,) * tensor.dim(), rank == 0, ALL_RANKS)
    whole: Any = tensor  # a DTensor; its type is not imported, because that takes half a second
    local = whole.to_local()
    offsets, shape = list((0,) * whole.dim()), list(whole.shape)
    is_first, place = True, []
    for placement, size, coordinate in zip(whole.placements, whole.device_mesh.shape, _coordinate(whole), strict=True):
        if placement.is_partial():
            raise SaveError(f"A tensor to save must have been added up, but one of shape {shape} is {placement}.")
        place.append("*" if placement.is_replicate() and size > 1 else str(coordinate))
        if placement.is_replicate():
            is_first = is_first and coordinate == 0
        elif placement.is_shard():
            begin, end = chunk(shape[placement.dim], size, coordinate)
            offsets[placement.dim] += begin
            shape[placement.dim] = end - begin
    if tuple(local.shape) != tuple(shape):
        raise SaveError(
            f"A tensor to save must be replicated or sharded evenly along dimensions, but one of shape "
            f"{list(whole.shape)} is placed as {whole.placements} and has {list(local.shape)} on rank {rank}."
        )
    shared_by = f"{tuple(whole.device_mesh.shape)} {' '.join(place)}" if "*" in place else ""
    return Part(local, tuple(whole.shape), tuple(offsets), is_first and local.numel() > 0, shared_by)


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether this is a DTensor; there is none before its module is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def chunk(length: int, count: int, index: int) -> tuple[int, int]:
    """Begin and end of the index-th of `count` chunks, as torch.chunk cuts them; the last ones may be empty."""
    size = -(-length // count)
    return min(length, index * size), min(length, (index + 1) * size)


def overlap(
    first_offsets: Sequence[int], first_shape: Sequence[int], second_offsets: Sequence[int], second_shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """What two boxes of one tensor have in common: as slices of the first, and of the second; None if nothing."""
    begins = [max(a, b) for a, b in zip(first_offsets, second_offsets, strict=True)]
    ends = [
        min(a + n, b + m)
        for a, n, b, m in zip(first_offsets, first_shape, second_offsets, second_shape, strict=True)
    ]  # fmt: skip
    if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
        return None
    return _slices(begins, ends, first_offsets), _slices(begins, ends, second_offsets)


def _slices(begins: Sequence[int], ends: Sequence[int], offsets: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(begin - o, end - o) for begin, end, o in zip(begins, ends, offsets, strict=True))


def _coordinate(whole: Any) -> list[int]:
    """Where this rank is in the tensor's mesh; a rank outside of it holds nothing."""
    return list(whole.device_mesh.get_coordinate() or whole.device_mesh.shape)

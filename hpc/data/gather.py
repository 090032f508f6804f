"""Everybody's values, rank after rank.

Before any tensor travels, ranks tell each other over the CPUs what they have, so that they either all go on or all
refuse with the same sentence: collectives of unlike tensors end in garbage, in an abort, or in waiting for ever.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import torch
from torch import distributed

from hpc.connect.process_group import ProcessGroup
from hpc.data.nest import is_list, is_record, map_leaves, parts_of, to_device, with_entries, with_parts
from hpc.data.rows import Rows
from hpc.errors import ConfigurationError

CARRIED = ("cpu", "cuda")
"""Kinds of devices whose tensors travel as they are; others' go by way of the CPU."""
Looks = tuple[tuple[int, ...], str]
"""Shape and type of a tensor or array."""


def gather(values: Any, group: ProcessGroup) -> Any:
    """Every rank's values. Collective.

    Args:
        values: Anything that can be pickled, in mappings, sequences and data classes, which keep their type. Tensors
            and arrays are joined along dimension 0, in which alone they may differ; of shape [], they become
            [world size]. Anything else becomes the list of what it is on each rank.
        group: All ranks.

    Raises:
        ConfigurationError: The ranks' values do not go together; on every rank.
    """
    nodes, refusal = _read(values, entries=False)
    return _gathered(values, nodes, group, refusal)


def gather_for_metrics(values: Any, group: ProcessGroup, rows: Rows | None) -> Any:
    """Every sample's part of the values, each sample once. Collective.

    Args:
        values: As for `gather`, but with a row for each sample of the batch: tensors and arrays; and lists and tuples
            with none of these in them, which are joined as well. None stays None.
        group: All ranks.
        rows: Which rows of the batch are samples; None where all are.

    Raises:
        ConfigurationError: A value has no row for each sample, or ranks' do not go together; on every rank.
    """
    nodes, refusal = _read(values, entries=True)
    try:
        if rows is not None:
            nodes = {path: _of_samples(node, rows, group.world.rank) for path, node in nodes.items()}
    except ConfigurationError as error:
        refusal = refusal or str(error)
    return _gathered(values, nodes, group, refusal)


@dataclass(frozen=True)
class _Node:
    """What lies at one place of a nest.

    Args:
        kind: "tensor", "array", "entries" (a list to be joined), "same" (on all ranks), "thing", or a nest's type.
        value: The thing itself.
    """

    kind: str
    value: Any

    @property
    def looks(self) -> Looks:
        """Shape and type of a tensor or array; ranks may differ in dimension 0 only, and texts in their length."""
        shape, dtype = tuple(self.value.shape), self.value.dtype
        if self.kind == "tensor":
            return shape, f"{dtype} on {self.value.device.type}"
        return shape, "NumPy's " + (dtype.kind if dtype.kind in "USO" else dtype.str)


@dataclass(frozen=True)
class _Told:
    """What a rank tells the others.

    Args:
        kinds: What lies at each place.
        looks: Of each tensor and array.
        words: What is no tensor, by place, pickled.
        refusal: Why this rank's values cannot be gathered.
    """

    kinds: dict[str, str]
    looks: dict[str, Looks]
    words: bytes
    refusal: str | None


def _read(nest: Any, entries: bool) -> tuple[dict[str, _Node], str | None]:
    """Every place of a nest, or why this rank's values cannot be gathered: the others must hear of it."""
    try:
        return dict(_nodes(nest, entries=entries)), None
    except RecursionError:
        return {}, f"gather takes values a hundred deep, but a {type(nest).__name__} is deeper, or holds itself."


def _nodes(nest: Any, path: str = "", entries: bool = False) -> Iterator[tuple[str, _Node]]:
    """Every place of a nest."""
    parts = None
    if isinstance(nest, torch.Tensor):
        yield path, _Node("tensor", nest)
    elif type(nest) is np.ndarray:
        yield path, _Node("array", nest)
    elif (parts := parts_of(nest)) is None:
        yield path, _Node("thing", nest)
    elif entries and _is_plain_list(nest):
        yield path, _Node("entries", nest)
    else:
        yield path, _Node(f"{type(nest).__name__} of {len(parts)}", nest)
        for key, part in parts.items():
            yield from _nodes(part, _path(path, nest, key), entries)


def _path(path: str, nest: Any, key: Any) -> str:
    return f"{path}.{key}" if is_record(nest) else f"{path}[{key!r}]"


def _is_plain_list(nest: Any) -> bool:
    """Whether it is a list or tuple without tensors: it is read as one entry for each sample."""
    plain = is_list(nest) or (isinstance(nest, tuple) and not hasattr(nest, "_fields"))
    return plain and all(node.kind not in ("tensor", "array") for _, node in _nodes(nest))


def _of_samples(node: _Node, rows: Rows, rank: int) -> _Node:
    """The same without the rows of repeated samples."""
    if node.kind in ("tensor", "array"):
        return replace(node, value=node.value[: rows.kept(tuple(node.value.shape), rank)])
    if node.kind == "entries":
        entries = list(node.value)[: rows.kept((len(node.value),), rank)]
        return replace(node, value=with_entries(node.value, entries))
    if node.kind == "thing":
        if node.value is not None:
            rows.kept((), rank)
        return replace(node, kind="same")
    return node


def _gathered(values: Any, nodes: dict[str, _Node], group: ProcessGroup, refusal: str | None = None) -> Any:
    everybody = group.all_gather(_told(nodes, refusal))
    _check(everybody)
    words = [pickle.loads(told.words) for told in everybody]
    results: dict[str, Any] = {}
    for path in sorted(nodes):  # the same order of collectives on all ranks
        node = nodes[path]
        if node.kind == "tensor":
            results[path] = _joined(node.value, [told.looks[path][0] for told in everybody], group)
        elif path in words[0]:
            results[path] = _merged(node, to_device([each[path] for each in words], group.device))
    return _rebuilt(values, "", results)


def _told(nodes: dict[str, _Node], refusal: str | None) -> _Told:
    things = {path: node.value for path, node in nodes.items() if node.kind in ("array", "entries", "same", "thing")}
    refusals = (_why_not(node.value, path) for path, node in nodes.items() if node.kind == "tensor")
    refusal = refusal or next((each for each in refusals if each), None)
    shaped = {} if refusal else nodes  # a nested tensor has no shape
    looks = {path: node.looks for path, node in shaped.items() if node.kind in ("tensor", "array")}
    try:
        words = pickle.dumps(map_leaves(_is_tensor, lambda tensor: tensor.detach().cpu(), things))
    except Exception as error:
        words = pickle.dumps({})
        refusal = refusal or f"gather takes values that can be pickled, but got one that cannot: {error}."
    return _Told({path: node.kind for path, node in nodes.items()}, looks, words, refusal)


def _is_tensor(thing: Any) -> bool:
    return isinstance(thing, torch.Tensor)


def _why_not(tensor: torch.Tensor, path: str) -> str | None:
    """Why a tensor cannot travel; those that are made of others have no bytes of their own."""
    made_of_others = hasattr(type(tensor), "__tensor_flatten__")
    if not (made_of_others or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized):
        return (
            None
            if tensor.device.type != "meta"
            else f"gather takes tensors with values, but{_at(path)} got a meta one."
        )
    return (
        f"gather takes dense tensors that lie on this rank as a whole, but{_at(path)} got a {type(tensor).__name__} of "
        f"layout {tensor.layout}: call its full_tensor(), to_dense() or dequantize() before."
    )


def _check(everybody: Sequence[_Told]) -> None:
    """Refuse values that cannot be joined, with the same sentence on every rank."""
    refusals = [(rank, told.refusal) for rank, told in enumerate(everybody) if told.refusal]
    if refusals:
        rank, refusal = refusals[0]
        raise ConfigurationError(refusal if len(refusals) == len(everybody) else f"On rank {rank}: {refusal}")
    for rank, told in enumerate(everybody):
        _check_kinds(rank, everybody[0].kinds, told.kinds)
    for rank, told in enumerate(everybody):
        _check_looks(rank, everybody[0].looks, told.looks)


def _check_kinds(rank: int, first: dict[str, str], other: dict[str, str]) -> None:
    for path in sorted({*first, *other}):
        ours, theirs = first.get(path, "nothing"), other.get(path, "nothing")
        if ours != theirs:
            raise ConfigurationError(
                f"gather takes values that are made alike on all ranks, but{_at(path)} rank 0 has {ours} and rank "
                f"{rank} has {theirs}: give every rank the same keys and as many entries, or let gather_for_metrics "
                "join lists."
            )


def _check_looks(rank: int, first: dict[str, Looks], other: dict[str, Looks]) -> None:
    for path in sorted(first):
        (ours, kind), (theirs, other_kind) = first[path], other[path]
        if (kind, len(ours), ours[1:]) != (other_kind, len(theirs), theirs[1:]):
            raise ConfigurationError(
                f"gather takes tensors of one type, whose shapes differ in dimension 0 only, but{_at(path)} rank 0 has "
                f"shape {ours} of {kind} and rank {rank} has shape {theirs} of {other_kind}: convert them, or pad them "
                "(torch.nn.functional.pad), before."
            )


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _joined(value: torch.Tensor, shapes: Sequence[tuple[int, ...]], group: ProcessGroup) -> torch.Tensor:
    """All ranks' tensors along dimension 0; as bytes, so that neither the type nor the length can confuse a backend."""
    kind = type(value.detach())
    plain = value.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    plain = plain.reshape(1) if plain.dim() == 0 else plain
    shape = (sum(shape[0] if shape else 1 for shape in shapes), *plain.shape[1:])
    if group.side is None or not prod(shape):
        return plain.reshape(shape) if group.side is None else plain.new_empty(shape).as_subclass(kind)
    carrier = plain if plain.device.type in CARRIED else plain.cpu()
    own = carrier.contiguous().reshape(-1).view(torch.uint8)
    sizes = [prod(shape) * plain.element_size() for shape in shapes]
    own = torch.cat([own, own.new_zeros(max(sizes) - own.numel())])
    everything = own.new_empty(len(sizes), max(sizes))
    distributed.all_gather(list(everything), own)
    parts = [part[:size] for part, size in zip(everything, sizes, strict=True)]
    return torch.cat(parts).view(plain.dtype).reshape(shape).to(value.device).as_subclass(kind)


def _merged(node: _Node, everybodys: list[Any]) -> Any:
    """What all ranks have at a place where there is no tensor."""
    if node.kind == "same":
        return node.value
    if node.kind == "array":
        return np.concatenate([np.atleast_1d(each) for each in everybodys])
    if node.kind == "entries":
        return with_entries(node.value, list(chain.from_iterable(everybodys)))
    return everybodys


def _rebuilt(nest: Any, path: str, results: dict[str, Any]) -> Any:
    if path in results:
        return results[path]
    parts = parts_of(nest) or {}
    return with_parts(nest, {key: _rebuilt(part, _path(path, nest, key), results) for key, part in parts.items()})

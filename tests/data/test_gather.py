"""Everybody's values, or one sentence on every rank; never garbage, never one rank's own in silence, never a hang."""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers.utils.generic import ModelOutput

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.launch.notebook import notebook_launcher

pytestmark = pytest.mark.gloo


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True)
class Frozen:
    x: Any
    y: Any = None


@dataclass
class Output(ModelOutput):
    x: Any = None
    y: Any = None


class Tagged(torch.Tensor):
    """A subclass as users write them."""


class Thing:
    """No container: what becomes of it is a list."""

    def __init__(self, x: Any) -> None:
        self.x = x


def rows(rank: int, *more: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """As many rows as the rank, and one; full of the rank, and one."""
    return torch.full((rank + 1, *more), rank + 1).to(dtype)


VALUES: dict[str, tuple[Callable[[int], Any], Any]] = {
    "float": (lambda rank: rank + 0.5, [0.5, 1.5]),
    "int": (lambda rank: rank, [0, 1]),
    "bool": (lambda rank: rank == 1, [False, True]),
    "text": (lambda rank: f"rank {rank}", ["rank 0", "rank 1"]),
    "bytes": (lambda rank: bytes([rank]), [b"\0", b"\1"]),
    "None": (lambda _: None, [None, None]),
    "None on one": (lambda rank: rank or None, [None, 1]),
    "complex": (lambda rank: 1j * rank, [0j, 1j]),
    "set": (lambda rank: {rank}, [{0}, {1}]),
    "numpy number": (lambda rank: np.float64(rank), [0.0, 1.0]),
    "numpy scalar": (lambda rank: np.array(rank), ("ndarray", "int64", [0, 1])),
    "numpy rows": (lambda rank: np.ones((rank + 1, 2)) * rank, ("ndarray", "float64", [[0, 0], [1, 1], [1, 1]])),
    "numpy texts": (lambda rank: np.array(["a" * (rank + 1)]), ("ndarray", "<U2", ["a", "aa"])),
    "scalar": (lambda rank: torch.tensor(rank), ("Tensor", "torch.int64", [0, 1])),
    "rows": (lambda rank: rows(rank), ("Tensor", "torch.float32", [1, 2, 2])),
    "matrix": (lambda rank: rows(rank, 2), ("Tensor", "torch.float32", [[1, 1], [2, 2], [2, 2]])),
    "no rows": (lambda _: torch.empty(0, 3), ("Tensor", "torch.float32", [])),
    "no columns": (lambda _: torch.empty(1, 0), ("Tensor", "torch.float32", [[], []])),
    "nothing on rank 0": (lambda rank: torch.ones(rank), ("Tensor", "torch.float32", [1])),
    "bools": (lambda rank: torch.tensor([rank == 1]), ("Tensor", "torch.bool", [False, True])),
    "bfloat16": (lambda rank: rows(rank, dtype=torch.bfloat16), ("Tensor", "torch.bfloat16", [1, 2, 2])),
    "float16": (lambda rank: rows(rank, dtype=torch.float16), ("Tensor", "torch.float16", [1, 2, 2])),
    "int16": (lambda rank: rows(rank, dtype=torch.int16), ("Tensor", "torch.int16", [1, 2, 2])),
    "uint16": (lambda rank: rows(rank, dtype=torch.uint16), ("Tensor", "torch.uint16", [1, 2, 2])),
    "complex tensor": (lambda rank: rows(rank) * 1j, ("Tensor", "torch.complex64", [1j, 2j, 2j])),
    "conjugate": (lambda rank: (rows(rank) * 1j).conj(), ("Tensor", "torch.complex64", [-1j, -2j, -2j])),
    "transposed": (
        lambda rank: torch.arange(4).reshape(2, 2).T + rank,
        ("Tensor", "torch.int64", [[0, 2], [1, 3], [1, 3], [2, 4]]),
    ),
    "with gradient": (lambda _: torch.ones(1, requires_grad=True) * 2, ("Tensor", "torch.float32", [2, 2])),
    "parameter": (lambda _: nn.Parameter(torch.ones(1)), ("Tensor", "torch.float32", [1, 1])),
    "subclass": (lambda rank: rows(rank).as_subclass(Tagged), ("Tagged", "torch.float32", [1, 2, 2])),
    "dict": (
        lambda rank: {"x": rows(rank), "y": rank},
        {"x": ("Tensor", "torch.float32", [1, 2, 2]), "y": [0, 1]},
    ),
    "keys in another order": (
        lambda rank: dict([("x", rank), (1, torch.tensor(rank))][:: 1 - 2 * rank]),
        {"x": [0, 1], 1: ("Tensor", "torch.int64", [0, 1])},
    ),
    "list": (lambda rank: [torch.tensor(rank), rank], [("Tensor", "torch.int64", [0, 1]), [0, 1]]),
    "long list": (lambda rank: [rank + 10 * each for each in range(12)], [[10 * n, 10 * n + 1] for n in range(12)]),
    "tuple": (lambda rank: (rank, "a"), ("tuple", [0, 1], ["a", "a"])),
    "empty": (lambda _: {"a": [], "b": ()}, {"a": [], "b": ("tuple",)}),
    "named tuple": (lambda rank: Pair(torch.tensor(rank), rank), ("Pair", ("Tensor", "torch.int64", [0, 1]), [0, 1])),
    "data class": (lambda rank: Frozen(rank, rows(rank)), ("Frozen", [0, 1], ("Tensor", "torch.float32", [1, 2, 2]))),
    "output": (lambda rank: Output(x=rows(rank)), ("Output", {"x": ("Tensor", "torch.float32", [1, 2, 2])})),
    "OrderedDict": (lambda rank: OrderedDict(a=rank), ("OrderedDict", {"a": [0, 1]})),
    "defaultdict": (lambda rank: defaultdict(list, a=rank), ("defaultdict", {"a": [0, 1]})),
    "deque": (lambda rank: deque([rank]), ("deque", [0, 1])),
    "return type": (
        lambda rank: torch.tensor([[rank, 5]]).max(dim=1),
        ("max", ("Tensor", "torch.int64", [5, 5]), ("Tensor", "torch.int64", [1, 1])),
    ),
    "object": (lambda rank: Thing(torch.tensor(rank)), [("Thing", 0), ("Thing", 1)]),
    "size": (lambda rank: torch.Size([rank]), [torch.Size([0]), torch.Size([1])]),
}


def unequal() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])


def within_itself() -> list[Any]:
    nest: list[Any] = []
    nest.append(nest)
    return nest


REFUSED: dict[str, tuple[Callable[[int], Any], str]] = {
    "width": (lambda rank: torch.ones(2, 3 + rank), r"rank 0 has shape \(2, 3\) of .*rank 1 has shape \(2, 4\).*pad"),
    "dimensions": (lambda rank: torch.ones([2] * (rank + 1)), r"rank 0 has shape \(2,\) .*rank 1 has shape \(2, 2\)"),
    "scalar and rows": (lambda rank: torch.ones([2] * rank), r"rank 0 has shape \(\) of .*rank 1 has shape \(2,\)"),
    "dtype": (lambda rank: {"x": [torch.ones(1), torch.ones(1).long()][rank]}, r"at \['x'\] rank 0 .*int64"),
    "numpy width": (lambda rank: np.ones((1, 2 + rank)), r"shape \(1, 2\) of NumPy's <f8 .*shape \(1, 3\)"),
    "keys": (lambda rank: {f"k{rank}": 1}, r"at \['k0'\] rank 0 has thing and rank 1 has nothing"),
    "kind": (lambda rank: [1.0, torch.ones(1)][rank], "rank 0 has thing and rank 1 has tensor"),
    "None and a tensor": (lambda rank: Pair(1, [None, torch.ones(1)][rank]), r"at \[1\] rank 0 has thing and rank 1"),
    "lengths": (lambda rank: ["a"] * (rank + 1), "rank 0 has list of 1 and rank 1 has list of 2: .*gather_for_metrics"),
    "types": (lambda rank: [[1], (1,)][rank], "rank 0 has list of 1 and rank 1 has tuple of 1"),
    "unpicklable": (lambda rank: [1, lambda: 1][rank], "On rank 1: gather takes values that can be pickled"),
    "unpicklable on all": (lambda _: iter(x for x in [1]), "^gather takes values that can be pickled"),
    "sparse": (lambda _: torch.ones(2).to_sparse(), r"got a Tensor of layout torch.sparse_coo: call .*to_dense\(\)"),
    "sparse on one": (lambda rank: torch.ones(2) if rank else torch.ones(2).to_sparse(), "On rank 0: .*sparse"),
    "meta": (lambda _: torch.ones(2, device="meta"), "gather takes tensors with values, but got a meta one"),
    "nested": (lambda rank: [torch.ones(1), unequal()][rank], "On rank 1: gather takes dense tensors .*full_tensor"),
    "itself": (lambda rank: [[1], within_itself()][rank], "On rank 1: .*but a list is deeper, or holds itself"),
}  # fmt: skip


def plain(value: Any) -> Any:
    """What is in a value, and of which type it is where that is no list or dict."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        assert not getattr(value, "requires_grad", False)
        return type(value).__name__, str(value.dtype), value.tolist()
    if isinstance(value, dict):
        found = {key: plain(each) for key, each in value.items()}
        return found if type(value) is dict else (type(value).__name__, found)
    if dataclasses.is_dataclass(value):
        return type(value).__name__, *(plain(each) for each in vars(value).values())
    if isinstance(value, Thing):
        return "Thing", value.x.item()
    if isinstance(value, deque) or (isinstance(value, tuple) and type(value) is not torch.Size):
        return type(value).__name__, *(plain(each) for each in value)
    return [plain(each) for each in value] if isinstance(value, list) else value


def answer(function: Callable[[Any], Any], value: Any) -> Any:
    try:
        return plain(function(value))
    except ConfigurationError as error:
        return str(error)


@dataclass
class Batch:
    """Of samples; its first tensor has another number of rows, as a graph's has."""

    edges: torch.Tensor
    index: torch.Tensor
    texts: list[str]

    def to(self, device: torch.device) -> Batch:
        raise AssertionError(device)


def collate(samples: list[int]) -> Batch:
    return Batch(torch.zeros(len(samples) * 3 + 1, 2), torch.tensor(samples), [f"text {each}" for each in samples])


METRICS: dict[str, tuple[Callable[[Batch], Any], Any]] = {
    "tensor": (lambda batch: batch.index, list(range(5))),
    "numpy": (lambda batch: batch.index.numpy(), list(range(5))),
    "texts": (lambda batch: batch.texts, [f"text {each}" for each in range(5)]),
    "tuple of texts": (lambda batch: tuple(batch.texts), [f"text {each}" for each in range(5)]),
    "numbers": (lambda batch: batch.index.tolist(), list(range(5))),
    "lists": (lambda batch: [[each] * each for each in batch.index.tolist()], [[each] * each for each in range(5)]),
    "dicts": (lambda batch: [{"n": each} for each in batch.index.tolist()], [{"n": each} for each in range(5)]),
    "several rows": (
        lambda batch: batch.index.repeat_interleave(2), [each for each in range(5) for _ in range(2)],
    ),
}  # fmt: skip


def metrics(runtime: Runtime, of: Callable[[Batch], Any]) -> list[Any]:
    """What a pass over five samples, two a rank and batch, makes of them."""
    loader = runtime.prepare(DataLoader(range(5), batch_size=2, collate_fn=collate))  # type: ignore[arg-type]
    found: list[Any] = []
    for batch in loader:
        joined = runtime.gather_for_metrics({"in": of(batch), "none": None})
        assert joined["none"] is None
        found += list(joined["in"].tolist() if hasattr(joined["in"], "tolist") else joined["in"])
    return found


def refusals_in_a_pass(runtime: Runtime) -> list[str]:
    """What is said of values without a row for each sample; on rank 1 alone, too."""
    loader = runtime.prepare(DataLoader(range(4), batch_size=2, collate_fn=collate))  # type: ignore[arg-type]
    wrong = [
        0.5,
        torch.tensor(0.5),
        torch.ones(3),
        ["one"],
        torch.ones(2 + runtime.process_index),
        Thing(1),
    ]
    return [answer(runtime.gather_for_metrics, value) for _ in loader for value in wrong]


def side_by_side(runtime: Runtime, others: int) -> Any:
    """What is gathered of five samples while a pass over others goes on beside theirs."""
    loaders: list[Any] = [DataLoader(range(length), batch_size=2) for length in (5, others)]  # type: ignore[arg-type]
    found: list[int] = []
    try:
        for batch, _ in zip(*runtime.prepare(*loaders), strict=False):
            found += runtime.gather_for_metrics(batch).tolist()
    except ConfigurationError as error:
        return str(error)
    return found


def ask(directory: Path) -> Any:
    """All questions, on this rank."""
    options = {"device": "cpu", "trackers": [], "collective_timeout_seconds": 60}
    with Runtime({"run_dir": str(directory), "runtime": options}) as runtime:
        rank = runtime.process_index
        found = {
            "gather": {name: answer(runtime.gather, make(rank)) for name, (make, _) in {**VALUES, **REFUSED}.items()},
            "metrics": {name: metrics(runtime, of) for name, (of, _) in METRICS.items()},
            "outside": answer(runtime.gather_for_metrics, {"texts": ["a"] * (rank + 1), "number": rank}),
            "refused": refusals_in_a_pass(runtime),
            "side by side": [side_by_side(runtime, others) for others in (5, 8)],
        }
        return runtime.group.all_gather(found)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two ranks found."""
    found: list[dict[str, Any]] = notebook_launcher(ask, (tmp_path_factory.mktemp("gather"),), num_processes=2)
    return found


@pytest.mark.parametrize("name", VALUES)
def test_every_rank_gets_everybodys_values(ranks: list[dict[str, Any]], name: str) -> None:
    expected = VALUES[name][1]
    assert [found["gather"][name] for found in ranks] == [expected, expected]


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_together_is_refused_in_the_same_words_on_all_ranks(
    ranks: list[dict[str, Any]], name: str
) -> None:
    first, second = (found["gather"][name] for found in ranks)
    assert first == second
    assert re.search(REFUSED[name][1], first)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_hold_every_sample_once_whatever_a_batch_is(ranks: list[dict[str, Any]], name: str) -> None:
    expected = METRICS[name][1]
    assert [found["metrics"][name] for found in ranks] == [expected, expected]


def test_outside_of_a_pass_lists_are_joined_and_numbers_listed(ranks: list[dict[str, Any]]) -> None:
    assert [found["outside"] for found in ranks] == [{"texts": ["a", "a", "a"], "number": [0, 1]}] * 2


def test_values_without_a_row_for_each_sample_are_refused_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    first, second = (found["refused"] for found in ranks)
    assert first == second
    shapes = [re.search(r"each of the batch's 2 samples, but got one of shape (\([^)]*\))", said) for said in first]
    assert [shape and shape[1] for shape in shapes] == ["()", "()", "(3,)", "(1,)", "(3,)", "()"]
    assert [said.startswith("On rank 1: ") for said in first] == [False, False, False, False, True, False]


def test_passes_side_by_side_repeat_the_same_rows_or_are_refused(ranks: list[dict[str, Any]]) -> None:
    for alike, other in (found["side by side"] for found in ranks):
        assert alike == [0, 1, 2, 3, 4]
        assert "passes over several loaders go on side by side" in other


def test_a_single_rank_is_told_the_same_in_the_same_form(tmp_path: Path) -> None:
    with Runtime({"run_dir": str(tmp_path), "runtime": {"device": "cpu", "trackers": []}}) as runtime:
        assert plain(runtime.gather({"x": torch.tensor(1.0), "y": 2, "z": ["a"]})) == {
            "x": ("Tensor", "torch.float32", [1.0]), "y": [2], "z": [["a"]],
        }  # fmt: skip
        assert runtime.gather_for_metrics(["a", "b"]) == ["a", "b"]
        for name in ("sparse", "meta", "unpicklable on all"):
            with pytest.raises(ConfigurationError, match=REFUSED[name][1]):
                runtime.gather(REFUSED[name][0](0))

"""Batches of any type keep it on their way to a device; the meta device stands for a GPU."""

from __future__ import annotations

from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from transformers.tokenization_utils_base import BatchEncoding
from transformers.utils.generic import ModelOutput

from hpc.data.nest import map_leaves, to_device
from hpc.errors import ConfigurationError

attr = pytest.importorskip("attr")
META = torch.device("meta")


class Pair(NamedTuple):
    x: torch.Tensor
    name: str


@dataclass
class Plain:
    x: torch.Tensor
    name: str = "kept"


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    name: str = "kept"


@dataclass(frozen=True, slots=True)
class Slots:
    x: torch.Tensor
    name: str = "kept"


@dataclass
class Derived:
    """Its attributes cannot all be given to its constructor."""

    x: torch.Tensor
    name: str = field(init=False, default="kept")

    def __post_init__(self) -> None:
        self.double = self.x * 2


Attrs: Any = attr.make_class("Attrs", {"x": attr.ib(), "name": attr.ib("kept")})
FrozenAttrs: Any = attr.make_class(
    "FrozenAttrs", {"x": attr.ib(), "name": attr.ib(default="kept")}, frozen=True, slots=True
)


class Object:
    """As torch's documentation shows a batch of one's own: it can pin its memory, and that is all."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x, self.name = x, "kept"

    def pin_memory(self) -> Object:
        return self


class Attributed(dict[str, Any]):
    """As easydict and argparse-like dicts: needs an argument, and has attributes of its own."""

    def __init__(self, needed: int, **items: Any) -> None:
        super().__init__(**items)
        self.needed = needed


class Named(tuple[Any, ...]):
    """A tuple with an attribute."""

    name: str


@dataclass
class Output(ModelOutput):
    x: Any = None
    name: Any = None


def x_of(batch: Any) -> torch.Tensor:
    found = batch["x"] if hasattr(batch, "keys") else getattr(batch, "x", None)
    tensor = found if found is not None else batch[0]
    assert isinstance(tensor, torch.Tensor)
    return tensor


def name_of(batch: Any) -> Any:
    return batch["name"] if hasattr(batch, "keys") else getattr(batch, "name", None) or batch[1]


X = torch.ones(2)
BATCHES: dict[str, Callable[[], Any]] = {
    "dict": lambda: {"x": X, "name": "kept"},
    "OrderedDict": lambda: OrderedDict(x=X, name="kept"),
    "defaultdict": lambda: defaultdict(list, x=X, name="kept"),
    "UserDict": lambda: UserDict(x=X, name="kept"),
    "mapping proxy": lambda: MappingProxyType({"x": X, "name": "kept"}),
    "dict with attributes": lambda: Attributed(3, x=X, name="kept"),
    "BatchEncoding": lambda: BatchEncoding({"x": X, "name": "kept"}),
    "ModelOutput": lambda: Output(x=X, name="kept"),
    "data class": lambda: Plain(X),
    "frozen data class": lambda: Frozen(X),
    "data class with slots": lambda: Slots(X),
    "data class with derived attributes": lambda: Derived(X),
    "attrs class": lambda: Attrs(X),
    "frozen attrs class": lambda: FrozenAttrs(X),
    "namespace": lambda: SimpleNamespace(x=X, name="kept"),
    "object": lambda: Object(X),
    "named tuple": lambda: Pair(X, "kept"),
    "tuple": lambda: (X, "kept"),
    "list": lambda: [X, "kept"],
    "deque": lambda: deque([X, "kept"], maxlen=5),
    "UserList": lambda: UserList([X, "kept"]),
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("inside", ["alone", "in a list", "in a dict", "in a data class"])
def test_a_batch_keeps_its_type_and_all_else_that_it_holds(kind: str, inside: str) -> None:
    ways: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "alone": (lambda each: each, lambda each: each),
        "in a list": (lambda each: [each], lambda each: each[0]),
        "in a dict": (lambda each: {"in": each}, lambda each: each["in"]),
        "in a data class": (lambda each: Plain(each), lambda each: each.x),
    }
    wrap, unwrap = ways[inside]
    batch = BATCHES[kind]()
    kind_of, x = type(batch), x_of(batch)
    moved = unwrap(to_device(wrap(batch), META))
    assert type(moved) is kind_of
    assert x_of(moved).is_meta
    assert name_of(moved) == "kept"
    assert not x.is_meta


def test_what_is_derived_moves_as_well() -> None:
    moved = to_device(Derived(X), META)
    assert moved.double.is_meta


def test_a_model_output_has_its_tensors_as_attributes_too() -> None:
    moved = to_device(Output(x=X), META)
    assert moved.x.is_meta
    assert moved["x"] is moved.x
    assert moved.name is None


def test_a_tuple_and_a_dict_keep_their_own_attributes() -> None:
    named = Named((X, 1))
    named.name = "kept"
    assert to_device(named, META).name == "kept"
    assert to_device(Attributed(3, x=X), META).needed == 3
    assert to_device(defaultdict(list, x=X), META)["new"] == []


def test_torchs_own_types_move() -> None:
    sequence = pack_sequence([torch.ones(3), torch.ones(2)])
    packed = to_device([sequence], META)[0]
    assert isinstance(packed, PackedSequence)
    assert packed.data.is_meta
    assert packed.batch_sizes.device.type == "cpu"
    largest = to_device(torch.ones(2, 3).max(dim=1), META)
    assert type(largest) is torch.return_types.max
    assert largest.indices.is_meta


def test_what_moves_in_place_is_kept() -> None:
    class Graph:
        def to(self, device: torch.device) -> None:
            self.device = device

    graph = Graph()
    assert to_device({"graph": graph}, META)["graph"] is graph
    assert graph.device == META


def test_what_holds_no_tensor_is_the_very_same() -> None:
    things = [{1, 2}, "text", 3, None, b"", range(3), Counter("ab"), torch.Size([2]), torch.float32, len, int, object()]
    for thing in things:
        assert to_device(thing, META) is thing
    batch = {"things": things, "tuple": (1, [2])}
    assert to_device(batch, META) is batch


def test_objects_in_objects_stay_where_they_are() -> None:
    """A batch may lead to its data set, and that to everything."""
    outer, inner = Object(X), Object(X)
    vars(outer)["dataset"] = inner
    moved = to_device(outer, META)
    assert moved.x.is_meta
    assert moved.dataset is inner
    assert not inner.x.is_meta


def test_a_type_that_cannot_be_copied_is_named() -> None:
    class Stubborn(list[Any]):
        def __copy__(self) -> Any:
            raise TypeError("no")

    with pytest.raises(ConfigurationError, match=r"but a Stubborn cannot \(TypeError: no\): use a dict"):
        to_device(Stubborn([X]), META)


def test_a_named_tuple_stays_one() -> None:
    assert map_leaves(torch.is_tensor, torch.neg, Pair(torch.ones(()), "kept")) == Pair(torch.tensor(-1.0), "kept")

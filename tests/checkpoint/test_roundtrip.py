"""What is saved comes back equal, values and types, or is refused with its place before anything is written."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import pathlib
import random
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import Stateful, TrainingState
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import ConfigurationError, DivergedError, HpcError, LoadError
from tests.support.saves import Alone


def save(directory: Path, state: TrainingState, step: int = 1, **more: Any) -> CheckpointStore:
    store = CheckpointStore(directory / "checkpoints")
    store.acquire()
    commit(store, Alone(), snapshot(state, step, 0, more.pop("extra", {}), {}, **more))
    return store


def load(directory: Path, state: TrainingState) -> dict[str, Any]:
    said: list[str] = []
    found = load_latest(CheckpointStore(directory / "checkpoints"), state, Alone(), said.append)
    assert not said
    assert found is not None
    return found.trainer


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, types and all, inside out."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        kinds = (left.dtype, left.shape, left.layout, left.requires_grad)
        if kinds != (right.dtype, right.shape, right.layout, right.requires_grad):
            return False
        return torch.equal(left.to_dense(), right.to_dense())
    if isinstance(left, (np.ndarray, np.generic)):
        equal = np.array_equal(left, right) if left.dtype.hasobject else left.tobytes() == right.tobytes()
        return left.dtype == right.dtype and left.shape == right.shape and equal
    if isinstance(left, torch.Generator):
        return torch.equal(left.get_state(), right.get_state())
    if isinstance(left, (random.Random, np.random.RandomState)):
        return same(left.getstate() if isinstance(left, random.Random) else left.get_state(),
                    right.getstate() if isinstance(right, random.Random) else right.get_state())  # fmt: skip
    if isinstance(left, np.random.Generator):
        return same(left.bit_generator.state, right.bit_generator.state)
    if isinstance(left, dict):
        return [*left] == [*right] and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple, collections.deque)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return all(same(getattr(left, name), getattr(right, name)) for name in names)
    return bool(left == right)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Best:
    step: int
    weights: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    value: np.float32


class Pair(NamedTuple):
    first: Any
    second: Any


def _counts() -> Any:
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    return counts


VALUES: dict[str, Any] = {
    "none": None,
    "numbers": [0, -1, 2**80, 2**3000, 1.5, math.inf, math.nan, True, 1 + 2j],
    "texts": ["", "ä\n\x00", b"", b"\x00\xff", bytearray(b"ab")],
    "tuple": (1, (2, [3])),
    "sets": [{1, 2}, frozenset({"a"}), set()],
    "keys": {1: "a", "1": "b", None: "c", (1, 2): "d", Colour.RED: "e", np.int64(4): "f", 2.5: "g"},
    "tagged": {"hpc:type": "set", "value": [1]},
    "deque": collections.deque([1.0, np.float32(2)], maxlen=5),
    "dicts": [collections.OrderedDict(b=1, a=2), collections.Counter("aab"), _counts()],
    "ranges": [range(1, 9, 2), slice(None, 3), ...],
    "enums": [Colour.RED, Level.HIGH, Flags.A | Flags.B],
    "dataclass": Best(3, torch.arange(3.0)),
    "slots": Slotted(np.float32(0.5)),
    "namedtuple": Pair(1, Pair(np.int8(2), "x")),
    "namespace": types.SimpleNamespace(a=1, b=[2]),
    "paths": [Path("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("d")],
    "times": [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("UTC"), fold=1),
        datetime.date(2026, 1, 2),
        datetime.time(3, 4),
        datetime.timedelta(days=1, microseconds=5),
        datetime.timezone(datetime.timedelta(hours=2), "here"),
    ],
    "exact": [decimal.Decimal("1.10"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
    "numpy": [np.float64(0.5), np.float32(0.1), np.int8(-3), np.bool_(True), np.str_("ab"), np.datetime64("2026-01")],
    "arrays": [np.arange(6).reshape(2, 3), np.zeros((0, 2), np.float16), np.array(3.0), np.eye(2, 3).T],
    "records": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "array of objects": np.array([None, "x", 3], dtype=object).reshape(3, 1),
    "dtypes": [np.dtype("float32"), torch.bfloat16, torch.device("cpu"), torch.Size([1, 2])],
    "tensors": {
        "plain": torch.randn(3, 2), "scalar": torch.tensor(3), "empty": torch.zeros(0, 4), "bits": torch.ones(2).bool(),
        "half": torch.ones(2).half(), "eight": torch.ones(2).to(torch.float8_e4m3fn), "turned": torch.randn(3, 2).t(),
        "complex": torch.ones(2, dtype=torch.complex128), "sparse": torch.eye(3).to_sparse(),
        "parameter": nn.Parameter(torch.ones(2)), "constant": nn.Parameter(torch.ones(2), requires_grad=False),
    },
    "a view of much": torch.arange(1000.0)[3:5],
    "generators": [
        torch.Generator().manual_seed(3), np.random.default_rng(3), random.Random(3), np.random.RandomState(3),
    ],
}  # fmt: skip
if hasattr(np, "longdouble"):
    VALUES["long double"] = np.longdouble(1) / 3


class Holder:
    """Registered by a user."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


@pytest.mark.parametrize("name", VALUES)
def test_whatever_is_registered_comes_back_equal_in_value_and_type(tmp_path: Path, name: str) -> None:
    others: dict[str, Stateful] = {"user.best": Holder(copy.deepcopy(VALUES[name]))}
    save(tmp_path, TrainingState([], [], others), position=VALUES[name], extra={"shared": VALUES[name]})
    fresh = Holder()
    trainer = load(tmp_path, TrainingState([], [], {"user.best": fresh}))
    assert same(fresh.value, VALUES[name])
    assert same(trainer["ranks"][0]["position"], VALUES[name])
    assert same(trainer["shared"], VALUES[name])


class Unknown:
    pass


class Texts(str):
    __slots__ = ()


@dataclasses.dataclass
class Output(dict):  # type: ignore[type-arg]
    logits: int = 1


def _itself() -> Any:
    value: list[Any] = []
    value.append({"again": value})
    return value


REFUSED = {
    "object": (Unknown(), "Unknown"), "function": (len, "builtin_function_or_method"), "class": (Unknown, "type"),
    "lambda": (lambda: 1, "function"), "masked": (np.ma.array([1]), "MaskedArray"), "text": (Texts("a"), "Texts"),
    "factory": (collections.defaultdict(lambda: 1), "defaultdict"), "output": (Output(), "Output"),
    "local": (dataclasses.make_dataclass("Local", ["a"])(1), "Local"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_saved_is_refused_with_its_place_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    value, kind = REFUSED[name]
    state = TrainingState([], [], {"user.best": Holder({"list": [1, value]})})
    with pytest.raises(ConfigurationError, match=rf"user\.best/value/list\[1\] is of type .*{kind}"):
        save(tmp_path, state)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["fence"]


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"user\.best/value\[0\]/again does"):
        save(tmp_path, TrainingState([], [], {"user.best": Holder(_itself())}))


class Counts(nn.Module):
    """Keeps a count that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.count: Any = None


class Copies(Counts):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.count is not None:
            destination[f"{prefix}count"] = copy.deepcopy(self.count)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.count = state.pop(f"{prefix}count", None)
        super()._load_from_state_dict(state, prefix, *rest)


class Extra(Counts):
    def get_extra_state(self) -> Any:
        return self.count

    def set_extra_state(self, state: Any) -> None:
        self.count = state


class Halved(Counts):
    """Its hooks save and load weights in another form."""

    def __init__(self) -> None:
        super().__init__()
        hooks: Any = self
        hooks.register_state_dict_post_hook(self._halve)
        hooks.register_load_state_dict_pre_hook(self._double)

    @staticmethod
    def _halve(_module: Any, state: Any, prefix: str, _metadata: Any) -> None:
        state[f"{prefix}linear.weight.half"] = state.pop(f"{prefix}linear.weight").detach() / 2

    @staticmethod
    def _double(_module: Any, state: Any, prefix: str, *_: Any) -> None:
        state[f"{prefix}linear.weight"] = state.pop(f"{prefix}linear.weight.half") * 2


class Renamed(Counts):
    """Its hooks save and load the same weight under another name."""

    def __init__(self) -> None:
        super().__init__()
        hooks: Any = self
        hooks.register_state_dict_post_hook(lambda *given: self._rename(given[1], "linear.weight", "w"))
        hooks.register_load_state_dict_pre_hook(lambda *given: self._rename(given[1], "w", "linear.weight"))

    @staticmethod
    def _rename(state: Any, old: str, new: str) -> None:
        state[new] = state.pop(old)


class Detached(Counts):
    """Gives copies whatever it is asked for."""

    def state_dict(self, *_: Any, **__: Any) -> Any:
        return {name: value.detach().clone() for name, value in super().state_dict().items()}


class LoadsItself(Counts):
    """Takes its state in a way of its own, and gives nothing back."""

    def load_state_dict(self, state: Any) -> None:  # type: ignore[override]
        super().load_state_dict(state)


class HalfOfIt(Counts):
    """Leaves a frozen part out of its state dict, as code that trains adapters does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(2, 3).requires_grad_(False)

    def state_dict(self, *given: Any, **named: Any) -> Any:
        return {name: each for name, each in super().state_dict(*given, **named).items() if "base" not in name}


class MakesRoom(Counts):
    """Its parameter is as large as what is loaded."""

    def __init__(self, rows: int = 1) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(rows, 2))

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.rows.data = torch.empty_like(state[f"{prefix}rows"])
        super()._load_from_state_dict(state, prefix, *rest)


class Buffers(Counts):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("forgotten", torch.zeros(2), persistent=False)


MODELS: dict[str, tuple[Callable[[], Counts], list[Any]]] = {
    "copies": (Copies, [torch.tensor(3.0), torch.arange(5), None]),
    "extra": (Extra, [torch.tensor(3.0), torch.arange(4), {"a": [torch.ones(2), np.float32(1)]}, 3, "x", None,
                      collections.deque([1]), b"bytes", torch.ones(2, dtype=torch.complex128)]),
    "halved": (Halved, [None]), "renamed": (Renamed, [None]),
    "detached": (Detached, [None]), "buffers": (Buffers, [None]), "loads": (LoadsItself, [None]),
}  # fmt: skip


def _filled(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(torch.randn(tensor.shape))
    return model


@pytest.mark.parametrize(("kind", "count"), [(kind, count) for kind, (_, each) in MODELS.items() for count in each])
def test_a_models_state_comes_back_as_its_load_state_dict_takes_it(tmp_path: Path, kind: str, count: Any) -> None:
    model, fresh = MODELS[kind][0](), MODELS[kind][0]()
    _filled(model)
    model.count = count
    save(tmp_path, TrainingState([model], [], {}))
    load(tmp_path, TrainingState([fresh], [], {}))
    assert same(dict(fresh.named_parameters()), dict(model.named_parameters()))
    assert same(fresh.state_dict(), model.state_dict())
    assert same(fresh.count, count)


def test_a_frozen_part_may_be_left_out_of_the_state_dict_and_a_trained_one_not(tmp_path: Path) -> None:
    models = HalfOfIt(), HalfOfIt()
    _filled(models[0].linear)
    save(tmp_path, TrainingState([models[0]], [], {}))
    load(tmp_path, TrainingState([models[1]], [], {}))
    assert same(dict(models[1].named_parameters()), dict(models[0].named_parameters()))
    models[0].base.requires_grad_(True)
    with pytest.raises(ConfigurationError, match=r"base\.weight, base\.bias is not in that of the HalfOfIt"):
        save(tmp_path, TrainingState([models[0]], [], {}), step=2)


def test_a_model_may_make_room_for_what_it_loads(tmp_path: Path) -> None:
    models = MakesRoom(3), MakesRoom(1)
    states = [TrainingState([each], [], {}) for each in models]
    save(tmp_path, states[0])
    states[1].begin()
    load(tmp_path, states[1])
    assert same(models[1].state_dict(), models[0].state_dict())
    save(tmp_path, states[1], step=2)


BUFFERS: dict[str, tuple[torch.Tensor | None, torch.Tensor]] = {
    "come": (None, torch.ones(2)),
    "grown": (torch.zeros(0, 2), torch.ones(3, 2)),
    "expanded": (torch.zeros(1).expand(3), torch.ones(1).expand(3)),
    "sparse": (torch.eye(3).to_sparse(), torch.ones(3, 3).to_sparse()),
    "complex": (torch.zeros(2, dtype=torch.complex128), torch.full((2,), 1 + 2j, dtype=torch.complex128)),
    "float8": (torch.zeros(2).to(torch.float8_e4m3fnuz), torch.ones(2).to(torch.float8_e4m3fnuz)),
}  # fmt: skip


def prepared(model: nn.Module) -> TrainingState:
    return TrainingState([model], [], {})


def registered(module: nn.Module) -> TrainingState:
    return TrainingState([], [], {"user.teacher": module})


@pytest.mark.parametrize("handed_over", [prepared, registered])
@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_buffer_comes_back_whatever_becomes_of_it_on_the_way(
    tmp_path: Path, name: str, from_the_start: bool, handed_over: Callable[[nn.Module], TrainingState]
) -> None:
    before, after = BUFFERS[name]
    models = [nn.Sequential(nn.Linear(2, 2)) for _ in range(2)]
    states = [handed_over(each) for each in models]
    for model, state in zip(models, states, strict=True):
        if from_the_start:
            model[0].register_buffer("kept", before)
        state.begin()
    models[0][0].register_buffer("kept", after)
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    kept = models[1].state_dict()["0.kept"]
    assert (kept.dtype, kept.layout) == (after.dtype, after.layout)
    assert torch.equal(kept.to_dense().to(torch.complex128), after.to_dense().to(torch.complex128))
    save(tmp_path, states[1], step=2)


@pytest.mark.parametrize("handed_over", [prepared, registered])
def test_a_buffer_that_comes_to_a_shared_layer_comes_back_under_both_names(
    tmp_path: Path, handed_over: Callable[[nn.Module], TrainingState]
) -> None:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    states = [handed_over(nn.ModuleDict({"encode": layer, "decode": layer})) for layer in layers]
    for state in states:
        state.begin()
    layers[0].register_buffer("kept", torch.ones(2))
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert torch.equal(layers[1].get_buffer("kept"), torch.ones(2))


def _appended(model: nn.Sequential) -> None:
    model.append(nn.Linear(2, 2))


def _popped(model: nn.Sequential) -> None:
    del model[1]


def _resized(model: nn.Sequential) -> None:
    model[1].bias.data = torch.zeros(5)


@pytest.mark.parametrize(("handed_over", "before"), [(prepared, ""), (registered, "user.teacher/")])
@pytest.mark.parametrize(("change", "name"), [(_appended, "2.weight"), (_popped, "1.weight"), (_resized, "1.bias")])
def test_a_module_that_could_not_be_built_anew_is_refused_when_it_is_saved(
    tmp_path: Path,
    change: Callable[[nn.Sequential], None],
    name: str,
    handed_over: Callable[[nn.Module], TrainingState],
    before: str,
) -> None:
    model, _ = next(_both())
    state = handed_over(model)
    state.begin()
    change(model)
    with pytest.raises(ConfigurationError, match=rf"at the beginning, but {before}{name}.* did: build all layers"):
        save(tmp_path, state)


def test_a_module_that_is_registered_after_the_first_step_has_changed_nothing(tmp_path: Path) -> None:
    modules = nn.Linear(2, 2), nn.Linear(2, 2)
    states = [TrainingState([], [], {}) for _ in modules]
    states[0].begin()
    for state, module in zip(states, modules, strict=True):
        state.others["user.teacher"] = module
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert same(modules[1].state_dict(), modules[0].state_dict())


@pytest.mark.parametrize("handed_over", [prepared, registered])
def test_layers_that_were_frozen_on_the_way_are_frozen_again(
    tmp_path: Path, handed_over: Callable[[nn.Module], TrainingState]
) -> None:
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    states = [handed_over(each) for each in models]
    for state in states:
        state.begin()
    models[0].bias.requires_grad_(False)
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert [models[1].weight.requires_grad, models[1].bias.requires_grad] == [True, False]


def test_a_state_that_the_model_cannot_take_back_is_one_sentence(tmp_path: Path) -> None:
    class Broken(Extra):
        def set_extra_state(self, state: Any) -> None:
            raise AttributeError(f"no place for {state}")

    model = Extra()
    model.count = 3
    save(tmp_path, TrainingState([model], [], {}))
    with pytest.raises(LoadError, match=r"model cannot take its state back \(AttributeError: no place for 3\)"):
        load(tmp_path, TrainingState([Broken()], [], {}))


class Strange(torch.optim.Optimizer):
    """Keeps whatever it is told to: of a parameter, under keys of its own, in its groups."""

    def __init__(self, parameters: Any, **kept: Any) -> None:
        super().__init__(
            parameters, {"lr": 0.1 * np.sqrt(2), "betas": (0.9, np.float64(0.99)), "rate": torch.tensor(0.1)}
        )
        self.kept = kept

    def step(self, closure: Any = None) -> Any:
        assert closure is None
        state: Any = self.state
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].update({name: copy.deepcopy(value) for name, value in self.kept.items()})
        state["k"] = torch.tensor([4])
        state["names"] = {"a": [torch.ones(2), np.float32(1)]}


class Wrapped(Strange):
    """Its state dict is not torch's."""

    slow: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"base": super().state_dict(), "slow": self.slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["base"])
        self.slow = state_dict["slow"]


class More(Strange):
    """Its state dict has more entries."""

    slow: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "slow": self.slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.slow = state_dict["slow"]
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "slow"})


KEPT = {
    "step": torch.tensor(3.0), "count": 3, "gain": np.float32(0.5), "array": np.arange(3), "word": "fast",
    "double": torch.ones(3, 2, dtype=torch.float64), "GG": [torch.eye(2), torch.eye(3)], "Q": None,
    "inner": {"a": {"b": torch.ones(4)}, 3: (torch.zeros(1), "x")}, "history": collections.deque([1.0], maxlen=2),
}  # fmt: skip


@pytest.mark.parametrize("make", [Strange, Wrapped, More])
def test_whatever_an_optimizer_keeps_comes_back(tmp_path: Path, make: type[Strange]) -> None:
    model, fresh = nn.Linear(2, 3), nn.Linear(2, 3)
    kept = KEPT if make is Strange else {"step": torch.tensor(3.0), "GG": [torch.eye(2), torch.eye(3)]}
    optimizer, other = make(model.parameters(), **kept), make(fresh.parameters())
    if make is not Strange:
        vars(optimizer)["slow"] = {"weights": [torch.ones(3)], "since": np.int64(2)}
    optimizer.step()
    save(tmp_path, TrainingState([model], [optimizer], {}))
    load(tmp_path, TrainingState([fresh], [other], {}))
    if make is Strange:
        assert same(other.state_dict(), optimizer.state_dict())
    assert same(vars(other).get("slow"), vars(optimizer).get("slow"))
    assert dict[Any, Any](other.state)["k"] == 4
    assert other.param_groups[0]["lr"] == 0.1 * np.sqrt(2)
    assert same({n: v for n, v in other.param_groups[0].items() if n != "params"},
                {n: v for n, v in optimizer.param_groups[0].items() if n != "params"})  # fmt: skip


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    name: getattr(torch.optim, name)
    for name in (
        "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
        "Rprop",
    )
} | {
    "SGD": lambda each: torch.optim.SGD(each, 0.1, momentum=0.9),
    "amsgrad": lambda each: torch.optim.AdamW(each, amsgrad=True),
}  # fmt: skip


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, points: torch.Tensor) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(points).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    if dtype is torch.bfloat16 and name == "LBFGS":
        pytest.skip("torch's LBFGS has no such type")
    points = torch.randn(8, 4, dtype=dtype)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).to(dtype)
    optimizer = OPTIMIZERS[name](model.parameters())
    _step(model, optimizer, points)
    save(tmp_path, TrainingState([model], [optimizer], {}))
    fresh = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)).to(dtype)
    other = OPTIMIZERS[name](fresh.parameters())
    load(tmp_path, TrainingState([fresh], [other], {}))
    assert same(other.state_dict(), optimizer.state_dict())
    for each in ((model, optimizer), (fresh, other)):
        _step(*each, points)
    assert same([*fresh.parameters()], [*model.parameters()])


def _both() -> Iterator[tuple[nn.Sequential, nn.Sequential]]:
    while True:
        yield nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def _groups(model: nn.Sequential, *places: str) -> list[dict[str, Any]]:
    return [{"params": [model[int(n)].weight for n in each], "lr": 0.1 * (int(each[:1] or 0) + 1)} for each in places]


def _trained(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (("0",), ("01",), ""),  # a layer was unfrozen between two lives
        (("01",), ("0",), ""),  # one was frozen
        (("01",), ("10",), ""),
        (("0",), ("0", "1"), "it has no parameter group of 1.weight, which is group 1 of the optimizer here"),
        (("0", "1"), ("0",), "one of 1.weight is not here; add it with add_param_group"),
        (("01",), ("0", "1"), "has other parameter groups, divided anew for 0.weight"),
        (("0", "1"), ("01",), "has other parameter groups, divided anew for 0.weight, 1.weight"),
        (("0", "1"), ("1", "0"), ""),
        (("0", ""), ("0", ""), ""),  # one for biases, say, of which there are none
    ],
)
def test_parameter_groups_are_matched_by_the_names_in_them(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], words: str
) -> None:
    model, fresh = next(_both())
    optimizer = _trained(torch.optim.AdamW(_groups(model, *before)))
    save(tmp_path, TrainingState([model], [optimizer], {}))
    other = torch.optim.AdamW(_groups(fresh, *after))
    if words:
        with pytest.raises(LoadError, match=words):
            load(tmp_path, TrainingState([fresh], [other], {}))
        return
    load(tmp_path, TrainingState([fresh], [other], {}))
    for place in ("0.weight", "1.weight"):
        both = optimizer.state.get(model.get_parameter(place)), other.state.get(fresh.get_parameter(place))
        assert both[0] is None or fresh.get_parameter(place) not in other.state or same(both[1], both[0])
    rates = [group["lr"] for group in other.param_groups]
    assert rates == ([0.2, 0.1] if after == ("1", "0") else [0.1] * len(after))
    _trained(other)


def test_a_parameter_group_that_was_added_on_the_way_is_added_again(tmp_path: Path) -> None:
    model, fresh = next(_both())
    optimizers = [torch.optim.AdamW(_groups(each, "0")) for each in (model, fresh)]
    states = [TrainingState([m], [o], {}) for m, o in zip((model, fresh), optimizers, strict=True)]
    for state in states:
        state.begin()
    optimizers[0].add_param_group(*_groups(model, "1"))
    _trained(optimizers[0])
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert same(optimizers[1].state_dict(), optimizers[0].state_dict())
    assert optimizers[1].param_groups[1]["params"][0] is fresh[1].weight


@pytest.mark.parametrize(
    ("set_up", "on_the_way", "then", "after"),
    [
        ((0,), (), (0,), ()),  # unfrozen at some step, which a resumed run does not take again
        ((), (0,), (), (0,)),
        ((0,), (0,), (), ()),  # unfrozen between two lives, by another set-up
        ((0,), (), (1,), (1,)),
    ],
)
def test_layers_are_frozen_as_they_were_or_as_they_now_are_set_up(
    tmp_path: Path, set_up: tuple[int, ...], on_the_way: tuple[int, ...], then: tuple[int, ...], after: tuple[int, ...]
) -> None:
    def freeze(model: nn.Sequential, places: tuple[int, ...]) -> None:
        for place, layer in enumerate(model):
            layer.requires_grad_(place not in places)

    model, fresh = next(_both())
    states = [TrainingState([each], [torch.optim.SGD(each.parameters())], {}) for each in (model, fresh)]
    for each, state, places in ((model, states[0], set_up), (fresh, states[1], then)):
        freeze(each, places)
        state.begin()
    freeze(model, on_the_way)
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert [n for n, layer in enumerate(fresh) if not layer.get_parameter("weight").requires_grad] == [*after]
    save(tmp_path, states[1], step=2)
    freeze(model, then)
    states[0].begin()
    load(tmp_path, states[0])
    assert [n for n, layer in enumerate(model) if not layer.get_parameter("weight").requires_grad] == [*after]


def test_a_parameter_that_no_checkpoint_would_hold_is_refused(tmp_path: Path) -> None:
    loose = nn.Parameter(torch.ones(3))
    state = TrainingState([model := nn.Linear(2, 2)], [torch.optim.SGD([*model.parameters(), loose])], {})
    with pytest.raises(ConfigurationError, match=r"one of shape \[3\] in its parameter group 0 belongs to no prepared"):
        save(tmp_path, state)


def test_the_parameters_of_a_registered_module_may_be_trained(tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        loss = nn.Linear(2, 2)
        states.append(TrainingState([], [_trained(torch.optim.Adam(loss.parameters()))], {"user.loss": loss}))
    save(tmp_path, states[0])
    load(tmp_path, states[1])
    assert same(states[1].optimizers[0].state_dict(), states[0].optimizers[0].state_dict())
    assert same(states[1].others["user.loss"].state_dict(), states[0].others["user.loss"].state_dict())


def test_an_averaged_model_and_its_tied_tensors_come_back(tmp_path: Path) -> None:
    models: list[nn.Module] = [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    averages = [AveragedModel(_filled(model)) for model in models]
    save(tmp_path, TrainingState(models[:1], [], {"user.ema": averages[0], "user.again": averages[0]}))
    fresh = AveragedModel(models[1])
    load(tmp_path, TrainingState(models[1:], [], {"user.ema": averages[1], "user.again": fresh}))
    assert same(averages[1].state_dict(), averages[0].state_dict())
    assert same(fresh.state_dict(), averages[0].state_dict())


class Fast:
    """Learning rates by an object that holds numpy values."""

    def __init__(self) -> None:
        self.top, self.table = np.float64(0.5), np.linspace(1, 0, 5)

    def __call__(self, step: int) -> Any:
        return self.top * self.table[min(step, 4)]


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "object": lambda each: lr_scheduler.LambdaLR(each, Fast()),
    "numpy": lambda each: lr_scheduler.MultiplicativeLR(each, lambda step: np.float64(0.9) ** step),
    "steps": lambda each: lr_scheduler.MultiStepLR(each, np.array([1, 3])),
    "plateau": lambda each: lr_scheduler.ReduceLROnPlateau(each, patience=0, min_lr=[np.float64(1e-3)]),
    "cyclic": lambda each: lr_scheduler.CyclicLR(each, np.float64(0.1), 1.0, scale_fn=lambda x: 0.9**x),
    "sequence": lambda each: lr_scheduler.SequentialLR(
        each, [lr_scheduler.LambdaLR(each, Fast()), lr_scheduler.ExponentialLR(each, np.float64(0.9))], [2]
    ),
    "chain": lambda each: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LambdaLR(each, Fast()), lr_scheduler.StepLR(each, 1)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_learning_rates_go_on(tmp_path: Path, name: str) -> None:
    def life(steps: int, where: Path, total: int) -> list[float]:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1 * np.sqrt(2), momentum=0.9)
        scheduler = SCHEDULERS[name](optimizer)
        state, rates = TrainingState([model], [optimizer], {"scheduler.0": scheduler}), []
        if steps:
            load(where, state)
        for _ in range(steps, total):
            _trained(optimizer)
            rates.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.step(*([1.0] if name == "plateau" else []))
        save(where, state)
        return rates

    whole = life(0, tmp_path / "whole", 6)
    assert [*life(0, tmp_path / "parts", 3), *life(3, tmp_path / "parts", 6)] == whole


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({}, r"it has state of user\.best, and nothing of that name"),
        ({"user.best": Holder(), "user.more": Holder()}, r"it has no state of user\.more"),
    ],
)
def test_what_is_registered_must_be_the_same(tmp_path: Path, here: dict[str, Stateful], words: str) -> None:
    save(tmp_path, TrainingState([], [], {"user.best": Holder(1)}))
    with pytest.raises(LoadError, match=words):
        load(tmp_path, TrainingState([], [], here))


def test_as_many_models_and_optimizers_must_be_prepared(tmp_path: Path) -> None:
    save(tmp_path, TrainingState([nn.Linear(2, 2)], [], {}))
    with pytest.raises(LoadError, match=r"it holds 1 model\(s\), and 2 are prepared here"):
        load(tmp_path, TrainingState([nn.Linear(2, 2), nn.Linear(2, 2)], [], {}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_no_checkpoint_holds_a_weight_that_is_not_finite(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    model = nn.Linear(2000, 2)
    model.weight = nn.Parameter(model.weight.detach().to(dtype), requires_grad=False)
    store = save(tmp_path, TrainingState([model], [], {}))
    model.weight[1, 1999] = value
    if not model.weight.float().isfinite().all():  # eight bits know no infinity
        with pytest.raises(DivergedError, match="weight must be finite, but is not on rank 0; nothing of step 2"):
            save(tmp_path, TrainingState([model], [], {}), step=2)
        assert [checkpoint.step for checkpoint in store.list()] == [1]


def test_a_buffer_may_hold_what_it_likes(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2,), -math.inf))
    save(tmp_path, TrainingState([model], [], {}))


def test_a_doubt_about_the_steps_before_keeps_them_from_being_saved(tmp_path: Path) -> None:
    store = save(tmp_path, TrainingState([nn.Linear(2, 2)], [], {}))
    with pytest.raises(DivergedError, match="loss is nan; the last checkpoint"):
        save(tmp_path, TrainingState([nn.Linear(2, 2)], [], {}), step=2, doubt=lambda: (2, "loss is nan"))
    assert [checkpoint.step for checkpoint in store.list()] == [1]


def _save_a_class(content: Any, writer: Any) -> None:
    torch.save({"content": Unknown} if content else {}, writer)


def test_a_trainer_file_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc.checkpoint.save._check_readable", id)
    monkeypatch.setattr("hpc.checkpoint.save._save", _save_a_class)
    save(tmp_path, TrainingState([], [], {}))
    said: list[str] = []
    store = CheckpointStore(tmp_path / "checkpoints")
    assert load_latest(store, TrainingState([], [], {}), Alone(), said.append) is None
    assert "trainer.pt cannot be read (" in said[0]


def test_what_cannot_be_read_back_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc.checkpoint.save._save", _save_a_class)
    with pytest.raises(HpcError, match=r"trainer\.pt was written, but cannot be read back"):
        save(tmp_path, TrainingState([], [], {}))
    assert CheckpointStore(tmp_path / "checkpoints").list() == []

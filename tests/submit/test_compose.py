"""A sweep composed fast is the sweep that Hydra composes: the same values, of the same types, in the same order."""

from __future__ import annotations

import itertools
import os
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from hpc.cli.run import _version_base
from hpc.submit.compose import Composer
from hpc.submit.family import Parts
from hpc.submit.overrides import Reader
from hpc.submit.resolve import known_to_hydra, resolved, set_run_directory

pytestmark = pytest.mark.usefixtures("conf")
SWEEP = Path("/runs/sweep")
OURS = """
defaults:
  - hpc_schema
  - hardware: laptop
  - strategy: ddp
  - model: small
  - data@train: digits
  - data@test: digits
  - optional tuned/${model}: ${hardware}
  - _self_

train_set: digits
experiment: {name: x, target: a.b}
run_dir: out/${now:%f}-${experiment.name}
seed: 0
optimizer: {lr: 0.1, betas: [0.9, 0.99], nested: {decay: 1.5e-3, name: adam}}
steps: ${mul:${seed},2}
whole: ${optimizer}
within:
  width: 3
  twice: ${mul:${.width},2}
  up: ${..seed}-${..optimizer.nested.name}
  list: ["${seed}", 1, {a: "${..1}"}]
number: ${hydra:job.num}
name_of_job: ${hydra:job.id}/${hydra:job.override_dirname}
task: ${hydra:overrides.task}
choice: ${hydra:runtime.choices.model}
environment: ${oc.env:HPC_TEST_VALUE,none}
count: [ "${count:}", "${random:}" ]
once: ${once:}
selected: ${oc.select:maybe.there,${seed}}
made: ${oc.create:"{a:${seed}}"}
values: ${oc.dict.values:optimizer.nested}
dir: ${run_dir}
nothing: null
"""
THEIRS = """
defaults:
  - _self_
  - typed
  - model: [small, extra]
  - over: "on"
  - override model: small

title: ${typed.name}
hydra:
  searchpath: [file://SEARCHED]
  job: {env_set: {A: "${title}"}}
"""
FILES = {
    "ours.yaml": OURS,
    "theirs.yaml": THEIRS,
    "model/small.yaml": "width: 1\nheads: ${.width}\nname: small",
    "model/big.yaml": "defaults: [small, _self_]\nwidth: 100\nname: big",
    "model/extra.yaml": "# @package model\nextra: ${width_of_extra}\n",
    "data/digits.yaml": "path: /d\nsize: 10\nlabel: ${seed}",
    "data/text.yaml": "path: /t\nblock: {size: ${seed}}",
    "tuned/small/laptop.yaml": "# @package _global_\noptimizer: {tuned: ${model.width}}",
    "over/on.yaml": "# @package _global_\ntyped: {count: 5}\nwidth_of_extra: 9",
    "over/off.yaml": "# @package _global_\nwidth_of_extra: 8\ntitle: off",
    "searched/model/found.yaml": "width: 55\nname: ${typed.name}",
}


class Colour(Enum):
    """As users have them."""

    RED = 1
    BLUE = 2


@dataclass
class Inner:
    """A section with types."""

    low: float = 0.5
    tags: list[str] = field(default_factory=lambda: ["a"])
    table: dict[str, int] = field(default_factory=lambda: {"x": 1})
    again: Any = "${..count}"


@dataclass
class Typed:
    """A schema of a user's own."""

    count: int = 1
    name: str = "n-${typed.count}"
    maybe: float | None = None
    colour: Colour = Colour.RED
    path: Path = Path("/p")
    either: int | str = 3
    flag: bool = False
    inner: Inner = field(default_factory=Inner)
    linked: Inner = field(default_factory=Inner)
    must: Any = 0


counter = itertools.count()


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("SEARCHED", str(directory / "searched")))
    ConfigStore.instance().store(name="typed", node={"typed": Typed})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OmegaConf 2.4 has another name for it, which means something else in 2.3
        OmegaConf.register_new_resolver("mul", lambda a, b: a * b, replace=True)
        OmegaConf.register_new_resolver("count", lambda: next(counter), replace=True)
        OmegaConf.register_new_resolver("random", random.random, replace=True)
        OmegaConf.register_new_resolver("once", random.random, use_cache=True, replace=True)
    with hydra.initialize_config_dir(str(directory), job_name="test", **_version_base()):
        yield
    for name in ("mul", "count", "random", "once"):
        OmegaConf.clear_resolver(name)


def by_hydra(loader: Any, master: DictConfig, number: int, overrides: list[str]) -> Parts:
    """What Hydra's own launchers would hand to the task, with a run directory, resolved."""
    config = loader.load_sweep_config(master, overrides)
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    HydraConfig.instance().set_config(config)
    set_run_directory(config, str(SWEEP / str(number)))
    return Parts(resolved(config), known_to_hydra(config))


def answers(compose: Any, points: list[list[str]]) -> list[str]:
    """What comes out point by point, up to the first error; what resolvers tell depends on when they are called."""
    global counter
    counter = itertools.count()
    random.seed(0)
    told = []
    for number, overrides in enumerate(points):
        try:
            told.append(repr(tuple(compose(number, overrides))))
        except Exception as error:
            return [*told, f"{type(error).__name__}: {error}"]
    return told


def compare(name: str, points: list[list[str]]) -> Composer:
    loader: Any = GlobalHydra.instance().config_loader()
    master = loader.load_configuration(name, [], RunMode.MULTIRUN)
    composer = Composer(loader, master, SWEEP)
    expected = answers(lambda number, overrides: by_hydra(loader, master, number, overrides), points)
    assert answers(composer.compose, points) == expected
    return composer


def product(*axes: str) -> list[list[str]]:
    """`a=1|2` has two values."""
    each = [[f"{stem}={value}" for value in values.split("|")] for stem, _, values in (a.partition("=") for a in axes)]
    return [list(point) for point in itertools.product(*each)]


OF_OURS = r"""
model=small|big
hardware=laptop|8xA100
data@train=digits|text
+data@more=text|digits
~strategy
tuned/small=none|digits
model=null|small
seed=1|2|3
seed=-1|0|07|1_0|+3|1e3
optimizer.lr=0.1|1e-3|1.|.5|inf|nan|1E5
optimizer.betas=[1,2]|[3]|[]
optimizer={lr:3}|{new:1}
+optimizer={lr:3}|{fresh:1}
+optimizer.new=1|2|null
++optimizer.lr=5|6
optimizer=null|1
++a.b.c=1|x|'q r'
+a.b=1|2
~optimizer.nested.decay
~optimizer.lr=0.1|0.2
~steps
~nothing
optimizer.nested.name='1'|a\,b|"it's"|true|null|\$|${seed}|'${'|???
optimizer.nested.name="été, 日本"|'a\'b'|%j|{a:1}|'[x'|a b
nothing=1|null|{a:1}
within.list.0=1|2
within.twice=4|5
within.width=4|${seed}
whole.lr=1|2
whole={lr:1}|{}
steps=5|${seed}
run_dir=a|b
strategy.compile=true|default
strategy.shard_size=2|${seed}
train_set=text|digits
hardware.nodes=1|2|x
made.a=1|2
+made.b=1|2
experiment.name=a|b
unknown=1|2
number=1|2
cluster.environment={A:b}|{B:'1'}
++cluster.environment.A=1|2
model.width=${count:}|2
model.heads=3|4
+model.heads=3|4
~model.heads=1
+hydra={a:1}|1
task=1|2
""".strip().splitlines()
OF_THEIRS = r"""
typed.count=1|2|'3'|x
typed.name=a|1|null|${typed.inner.low}
typed.maybe=1|null|2.5
typed.colour=RED|BLUE|2
typed.path=/a|b
typed.either=1|x|2.5
typed.flag=true|0|yes
typed.inner.low=1|0.25
typed.inner.tags=[x]|[]
typed.inner.tags.0=z|y
typed.inner.table={y:2}|{x:5}
+typed.inner.table.z=1|2
typed.linked=${typed.inner}|null
typed.linked.low=3|4
typed.must=1|x|???
typed.inner={low:3}|{low:x}
typed.inner.again=1|2
over=on|off
+typed.nope=1
model=small|found
model=[small,extra]|[big]
title=a|b
++title=c
~title
""".strip().splitlines()


def sweeps(axes: list[str]) -> st.SearchStrategy[list[list[str]]]:
    chosen = st.lists(st.sampled_from(axes), min_size=1, max_size=5, unique_by=lambda axis: axis.partition("=")[0])
    return chosen.map(_points)


def _points(axes: list[str]) -> list[list[str]]:
    each = [[axis] if "=" not in axis else [point[0] for point in product(axis)] for axis in axes]
    return [list(point) for point in itertools.product(*each)][:6]


PROPERTY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # Hydra takes a tenth of a second for a point: shrinking would take minutes
    suppress_health_check=[*HealthCheck],
)


@PROPERTY
@given(points=sweeps(OF_OURS))
def test_a_sweep_of_ours(points: list[list[str]]) -> None:
    compare("ours", points)


@PROPERTY
@given(points=sweeps(OF_THEIRS))
def test_a_sweep_of_a_project_of_another_shape(points: list[list[str]]) -> None:
    compare("theirs", points)


NUMBERS = st.one_of(st.integers(), st.floats()).map(str)


@settings(PROPERTY, max_examples=100)
@given(values=st.lists(st.one_of(NUMBERS, st.from_regex(r"[-+.eE0-9_]{1,8}", fullmatch=True)), max_size=12))
def test_numbers_are_read_as_hydra_reads_them(values: list[str]) -> None:
    parse, reader = OverridesParser.create().parse_override, a_reader()
    for text in [f"{key}={value}" for key in ("optimizer.lr", "+a", "++b.c", "~d") for value in ["1", *values]]:
        try:
            expected = parse(text)
        except OverrideParseException:
            with pytest.raises(OverrideParseException):
                reader.line(text)
        else:
            assert repr(reader.line(text).override) == repr(expected)


@cache
def a_reader() -> Reader:
    loader: Any = GlobalHydra.instance().config_loader()
    return Reader(loader, loader.load_configuration("ours", [], RunMode.MULTIRUN))


def test_points_that_differ_in_values_are_composed_once() -> None:
    points = product("model=small|big", "seed=1|2|3", "+fresh=1|2", "++optimizer.lr2=x")
    assert compare("ours", points).ways == {"by Hydra": 1, "by choice": 1, "by value": 10}


def test_what_cannot_be_set_anew_costs_one_composition_each() -> None:
    points = product("optimizer.betas=[1,2]|[3,4]", "strategy.compile=true|false", "seed=1|2|3")
    assert compare("ours", points).ways["by value"] >= 6


def test_what_another_override_reads_is_left_alone() -> None:
    """Merging into an interpolation copies what it points to, as it is at that moment."""
    points = product("optimizer.lr=1|2|3", "whole={more:1}")
    assert "by value" not in compare("ours", points).ways


def test_the_environment_is_read_for_every_point(monkeypatch: pytest.MonkeyPatch) -> None:
    loader: Any = GlobalHydra.instance().config_loader()
    composer = Composer(loader, loader.load_configuration("ours", [], RunMode.MULTIRUN), SWEEP)
    told = []
    for number in range(4):
        monkeypatch.setitem(os.environ, "HPC_TEST_VALUE", f"v{number}")
        told.append(composer.compose(number, [f"seed={number}"]).config["environment"])
    assert told == ["v0", "v1", "v2", "v3"]
    assert composer.ways["by value"] == 3


def test_another_hydra_composes_every_point_itself() -> None:
    loader: Any = GlobalHydra.instance().config_loader()
    original = type(loader)._apply_overrides_to_config

    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(loader, name)

        @staticmethod
        def _apply_overrides_to_config(overrides: list[Any], config: DictConfig) -> None:
            original(overrides, config)
            config.seed = 99

    other: Any = Other()
    master = loader.load_configuration("ours", [], RunMode.MULTIRUN)
    composer = Composer(other, master, SWEEP)
    assert [composer.compose(number, [f"seed={number}"]).config["seed"] for number in range(3)] == [0, 1, 2]
    assert composer.ways == {"by Hydra": 3}

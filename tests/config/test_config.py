"""The config as hpc reads it: typed, in range, and explained when it is not."""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hpc.config import Cluster, StrategyOptions, read_config, settings_of
from hpc.config.limits import choices
from hpc.errors import ConfigurationError
from hpc.paths import CONF_DIR
from tests.conftest import clean_environment


def test_an_empty_config_is_a_laptop() -> None:
    settings = settings_of({})
    assert settings.hardware.task_count == 1
    assert settings.strategy.precision == "fp32"


def test_keys_of_the_training_function_are_not_hpcs_business() -> None:
    assert settings_of({"optimizer": {"lr": 1}, "seed": 7}).seed == 7


class Thing:
    """Which no YAML can hold."""


@dataclass
class Own:
    """A user's own config."""

    run_dir: str = "r"
    seed: int = 7
    lr: float = 0.1
    thing: Any = field(default_factory=Thing)


@pytest.mark.parametrize(
    "config",
    [
        {"run_dir": "r", "seed": 7, "thing": Thing(), "betas": (0.9, 0.99), 5: print},
        MappingProxyType({"run_dir": "r", "seed": 7, "optimizer": MappingProxyType({"lr": 1})}),
        Namespace(run_dir=Path("r"), seed=7, thing=Thing()),
        SimpleNamespace(run_dir="r", seed=7, runtime=SimpleNamespace(device="cpu")),
        Own(),
        OmegaConf.create({"run_dir": "r", "seed": "${data.seed}", "data": {"seed": 7}}),
        {"run_dir": "${paths.name}", "paths": {"name": "r"}, "seed": 7, "never_read": "${nowhere}"},
        {"run_dir": "${letter}", "letter": "r", "seed": 7, "experiment": {"name": "\\${letter}-${seed}"}},
    ],
    ids=lambda config: type(config).__name__,
)
def test_whatever_has_names_and_values_is_a_config(config: Any) -> None:
    settings = settings_of(config)
    assert (settings.run_dir, settings.seed) == ("r", 7)
    assert read_config(config).run_dir in (settings.run_dir, Path("r"))
    assert settings.experiment.name in ("experiment", "${letter}-7")


@pytest.mark.parametrize("config", [None, "conf/config.yaml", ["seed=1"], 3, object(), OmegaConf.create([1])], ids=type)
def test_what_has_no_names_is_no_config(config: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"but is a {type(config).__name__}: OmegaConf.load reads a file"):
        settings_of(config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"seed": "${data.seed}", "data": {"seed": "x"}}, "seed must be a whole number, but is x."),
        ({"seed": "${data.first}", "data": {"lr": 1}}, "Interpolation key 'data.first' not found (at seed)."),
        ({"hardware": {"nodes": 0}}, "hardware.nodes must be at least 1, but is 0."),
        ({"hardware": {"gpus_per_node": -1}}, "hardware.gpus_per_node must be at least 0, but is -1."),
        ({"strategy": {"name": "dpp"}}, "strategy.name must be one of ddp, fsdp, deepspeed, single, but is dpp."),
        (
            {"strategy": {"compile": "fast"}},
            "strategy.compile must be one of false, true, default, reduce-overhead, max-autotune, "
            "max-autotune-no-cudagraphs, but is fast.",
        ),
        ({"strategy": {"zero_stage": 4}}, "strategy.zero_stage must be one of null, 1, 2, 3, but is 4."),
        (
            {"strategy": {"cpu_offload": True}},
            "strategy.cpu_offload must be false unless strategy=fsdp, but is true with strategy=ddp.",
        ),
        ({"runtime": {"device": "tpu"}}, "runtime.device must be one of auto, cuda, xla, mps, cpu, but is tpu."),
        ({"cluster": {"scheduler": "pbs"}}, "cluster.scheduler must be one of auto, local, slurm, but is pbs."),
        ({"seed": "many"}, "seed must be a whole number, but is many."),
        ({"cluster": {"environment": {"A": [1]}}}, "cluster.environment.A must be a text, but is a list."),
        ({"runtime": {"deterministic": 2.5}}, "runtime.deterministic must be true or false, but is 2.5."),
        ({"checkpoint": {"every_minutes": "soon"}}, "checkpoint.every_minutes must be a number, but is soon."),
        ({"experiment": {"name": None}}, "experiment.name must be given, but is null."),
        ({"strategy": None}, "strategy must be a mapping of its settings, but is null."),
        ({"experiment": {"goal": "x"}}, "experiment.goal is no setting: experiment has name, target."),
        ({"checkpoint": {"on_error": "ignore"}}, "checkpoint.on_error must be one of stop, continue, but is ignore."),
        ({"checkpoint": {"every_minutes": 0}}, "checkpoint.every_minutes must be above 0, but is 0."),
        (
            {"checkpoint": {"every_steps": 5, "every_minutes": 1.5}},
            "checkpoint.every_steps and checkpoint.every_minutes must not both be given, but are 5 and 1.5: "
            "leave one null.",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)) as caught:
        settings_of(config)
    assert str(caught.value) == words


def test_variables_are_words_as_a_shell_has_them() -> None:
    found = settings_of({"cluster": {"environment": {"A": False, "B": 1, "C": "yes", "D": 0.5, "E": "True"}}})
    assert found.cluster.environment == {"A": "false", "B": "1", "C": "yes", "D": "0.5", "E": "True"}


@pytest.mark.parametrize("path", sorted((CONF_DIR / "hardware").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_hardware_preset_is_valid_and_named_after_its_file(path: Path) -> None:
    preset = OmegaConf.load(path)
    assert isinstance(preset, OmegaConf.create({}).__class__)
    base: Any = OmegaConf.load(path.parent / f"{preset.pop('defaults')[0]}.yaml") if "defaults" in preset else {}
    hardware = settings_of({"hardware": OmegaConf.merge(base, preset)}).hardware
    assert hardware.name == path.stem
    assert bool(hardware.source) == bool(hardware.gpus_per_node)
    assert hardware.gpus_per_node in (0, hardware.tasks_per_node)


@pytest.mark.parametrize(("section", "option"), [(Cluster, "scheduler"), (StrategyOptions, "name")])
def test_every_choice_has_a_file(section: type, option: str) -> None:
    directory = CONF_DIR / {Cluster: "cluster", StrategyOptions: "strategy"}[section]
    assert {path.stem for path in directory.glob("*.yaml")} >= set(choices(section, option))


@pytest.mark.parametrize(
    ("command", "name"), [("train.py", "train"), ("-m tools.probe", "probe"), ("-m tools", "tools"), ("-", "run")]
)
def test_programs_without_a_config_do_not_share_a_run_directory(tmp_path: Path, command: str, name: str) -> None:
    program = "from hpc.config import Settings\nprint(Settings().run_dir)\n"
    (tmp_path / "tools").mkdir()
    for file in ("train.py", "tools/__init__.py", "tools/probe.py", "tools/__main__.py"):
        (tmp_path / file).write_text("" if "__init__" in file else program)
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=tmp_path, input=program, env=clean_environment(),
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == f"runs/{name}\n"

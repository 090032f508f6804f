"""What a strategy does in one process: which layers it takes, what it refuses, how windows and loss scales go."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.lr_scheduler import StepLR

from hpc import Runtime
from hpc.checkpoint.state import TrainingState
from hpc.config import StrategyOptions, settings_of
from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore
from hpc.errors import ConfigurationError
from hpc.strategy import STRATEGIES, Context, choose
from hpc.strategy.blocks import find_blocks
from hpc.strategy.deepspeed_config import read_settings
from hpc.strategy.precision import Precision
from hpc.strategy.window import Window
from hpc.world import World
from tests.conftest import ROOT, Run
from tests.programs.strategy_models import Stack

CPU = torch.device("cpu")


def runtime(directory: Path, **strategy: Any) -> Runtime:
    return Runtime({"run_dir": str(directory), "runtime": {"device": "cpu"}, "strategy": strategy})


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 32)
        self.layers = nn.ModuleList([nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32)])
        self.head = nn.Linear(32, 64, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["blocks.0", "blocks.1", "blocks.2"]),
        ({"blocks": ["Residual"]}, ["blocks.0", "blocks.1", "blocks.2"]),
        ({"blocks": ["LayerNorm"]}, ["blocks.0.norm", "blocks.1.norm", "blocks.2.norm"]),
        ({"min_block_parameters": 4000}, ["blocks.0", "blocks.1", "blocks.2"]),
        ({"min_block_parameters": 2100}, [f"blocks.{i}{inner}" for i in range(3) for inner in ("", ".up")]),
        ({"min_block_parameters": 10**6}, []),
    ],
)
def test_blocks_are_found_by_class_by_size_or_where_layers_are_kept(
    options: dict[str, Any], expected: list[str]
) -> None:
    model = Stack()
    names = {module: name for name, module in model.named_modules()}
    assert [names[block] for block in find_blocks(model, StrategyOptions(**options))] == expected


@pytest.mark.parametrize("options", [{}, {"blocks": ["Linear", "Embedding"]}, {"min_block_parameters": 100}])
def test_what_shares_a_parameter_with_the_rest_is_no_block(options: dict[str, Any]) -> None:
    model = Tied()
    assert find_blocks(model, StrategyOptions(**options)) == [model.layers[0], model.layers[2]]


@pytest.mark.parametrize(
    ("strategy", "model", "words"),
    [
        ({}, lambda: nn.CrossEntropyLoss(), "modules with parameters, but the CrossEntropyLoss has none"),
        ({}, lambda: nn.DataParallel(nn.Linear(2, 2)), "takes the module itself, .* but got a DataParallel"),
        (
            {},
            lambda: torch.compile(nn.Linear(2, 2), backend="eager"),
            "takes the module itself, .* but got a OptimizedModule",
        ),
        ({}, lambda: nn.Linear(2, 2, device="meta"), "weight of the Linear is on the meta device"),
        ({"precision": "fp16"}, lambda: nn.Linear(2, 2).half(), "weight is float16: leave out .half()"),
        ({"activation_checkpointing": True}, lambda: nn.Linear(2, 2), "needs layers to compute again"),
        ({"blocks": ["Blok"]}, lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), r"\(Linear, ReLU\), but names Blok"),
    ],
)
def test_a_model_that_cannot_be_prepared_is_refused(
    tmp_path: Path, strategy: dict[str, Any], model: Any, words: str
) -> None:
    with runtime(tmp_path, **strategy) as here, pytest.raises(ConfigurationError, match=words):
        here.prepare(model())


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "strategy").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_names_a_strategy(path: Path) -> None:
    section = OmegaConf.create({"strategy": OmegaConf.load(path), "hardware": {"tasks_per_node": 8}})
    assert settings_of(section).strategy.name in STRATEGIES


def test_a_shard_size_that_leaves_ranks_over_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"shard_size must divide the world size \(4\), .* but is 3"):
        choose(four_ranks(StrategyOptions(name="fsdp", shard_size=3)))


def test_a_torch_whose_fsdp_has_no_cpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu.Stream, "record_event", raising=False)
    with pytest.raises(ConfigurationError, match=r"with torch 2\..*, but runtime\.device is cpu: take strategy=ddp"):
        choose(four_ranks(StrategyOptions(name="fsdp")))


def four_ranks(options: StrategyOptions) -> Context:
    """What a strategy is made from on the first of four ranks, which never meet."""
    world = World(0, 4, 0, 4, 0, 1, ("here",), "torchrun", "job")
    group = ProcessGroup(world, CPU, SealedStore(torch.distributed.HashStore(), b""), words=None)
    state = TrainingState(models=[], optimizers=[], others={})
    return Context(options, group, Precision("fp32", CPU), Window(1), state, deterministic=False)


def test_a_loop_without_accumulate_steps(tmp_path: Path) -> None:
    with runtime(tmp_path) as here:
        model, optimizer = here.prepare(layer := nn.Linear(2, 1), torch.optim.SGD(layer.parameters(), lr=1.0))
        before = model.weight.detach().clone()
        here.backward(model(torch.ones(1, 2)).sum())
        optimizer.step()
        assert torch.equal(model.weight, before - 1)


def test_a_short_last_window_is_the_mean_over_what_it_has(tmp_path: Path) -> None:
    with runtime(tmp_path, accumulation_steps=4) as here:
        model, optimizer = here.prepare(layer := nn.Linear(1, 1), torch.optim.SGD(layer.parameters(), lr=1.0))
        gradients = []
        for size, inputs in ((None, [1.0, 2.0, 3.0, 4.0]), (2, [5.0, 6.0]), (None, [7.0, 8.0, 9.0, 10.0])):
            for value in inputs:
                with here.accumulate(size=size):
                    here.backward(model(torch.tensor([[value]])).sum())
                    if here.window.is_last:
                        gradients.append(model.weight.grad.item())
                    optimizer.step()
                    optimizer.zero_grad()
        assert gradients == [2.5, 5.5, 8.5]


def test_two_optimizers_share_one_loss_scale_and_are_skipped_each_for_itself(tmp_path: Path) -> None:
    with runtime(tmp_path, precision="fp16") as here:
        first, second = nn.Linear(2, 1), nn.Linear(2, 1)
        optimizers = [torch.optim.SGD(each.parameters(), lr=1.0) for each in (first, second)]
        schedulers = [StepLR(each, 1, 0.5) for each in optimizers]
        first, second, *prepared = here.prepare(first, second, *optimizers, *schedulers)
        before = [each.weight.detach().clone() for each in (first, second)]
        with here.accumulate():
            here.backward(first(torch.ones(1, 2)).float().sum() * math.inf + second(torch.ones(1, 2)).float().sum() / 4)
            here.clip_grad_norm_(100.0, second.parameters())
            for each in prepared:
                each.step()
        assert torch.equal(first.weight, before[0])
        assert torch.equal(second.weight, before[1] - 0.25)
        assert [each.param_groups[0]["lr"] for each in optimizers] == [1.0, 0.5]
        assert here.precision.state_dict()["scale"] == 2.0**15


SAID = {
    "gradient_accumulation_steps": (4, r"must be strategy.accumulation_steps \(2\), but is 4"),
    "zero_optimization": ({"stage": 3}, r"zero_optimization.stage in .* must be strategy.zero_stage \(1\), but is 3"),
    "fp16": ({"enabled": True}, r"strategy.precision must be what .* enables \(fp16\), but is bf16"),
    "bf16": ({"enabled": False}, r"enables \(fp32\), but is bf16"),
    "train_micro_batch_size_per_gpu": (16, r"must be the loader's batch_size \(8\), but is 16"),
    "train_batch_size": (64, r"must be batch_size × strategy.accumulation_steps × ranks \(32\), but is 64"),
    "gradient_clipping": (0.5, r"must be the norm given to clip_grad_norm_ \(1.0\), but is 0.5"),
    "optimizer": ({"type": "AdamW"}, "must not have optimizer"),
    "scheduler": ({"type": "WarmupLR"}, "must not have scheduler"),
}
OPTIONS: dict[str, Any] = {"name": "deepspeed", "accumulation_steps": 2, "zero_stage": 1, "precision": "bf16"}


def read_and_check(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    path.write_text(json.dumps(content))
    settings = read_settings(StrategyOptions(**OPTIONS, deepspeed_config=str(path)), world_size=2)
    settings.check_batch_size(8)
    settings.check_clipping(1.0)
    return settings.for_engine()


@pytest.mark.parametrize("key", SAID)
def test_a_deepspeed_file_that_contradicts_the_config_is_refused_with_both_values(tmp_path: Path, key: str) -> None:
    value, words = SAID[key]
    with pytest.raises(ConfigurationError, match=words):
        read_and_check(tmp_path / "zero.json", {key: value})


def test_a_deepspeed_file_that_agrees_is_told_the_engine_without_its_auto_values(tmp_path: Path) -> None:
    section = {"stage": 1, "reduce_bucket_size": 1000, "overlap_comm": "auto"}
    told = read_and_check(
        tmp_path / "zero.json", {"zero_optimization": section, "train_batch_size": 32, "bf16": {"enabled": True}}
    )
    assert told["zero_optimization"] == {"stage": 1, "reduce_bucket_size": 1000}
    assert told["bf16"] == {"enabled": True}
    assert told["gradient_accumulation_steps"] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "must hold a JSON object, but holds a list"),
        ("{", "strategy.deepspeed_config must be a JSON file, but is .*: Expecting"),
        ('{"zero_optimization": {"stage": 0}}', "The ZeRO stage must be 1, 2 or 3, but is 0"),
    ],
)
def test_a_deepspeed_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "zero.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        read_settings(StrategyOptions(name="deepspeed", deepspeed_config=str(path)), world_size=2)


def test_deepspeed_that_is_not_installed_is_named_with_the_command_that_installs_it(
    run_py: Run, tmp_path: Path
) -> None:
    package = tmp_path / "packages" / "deepspeed"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('No module named deepspeed', name='deepspeed')\n")
    done = run_py(
        "strategy=deepspeed", "experiment.target=tests.programs.jobs.train", "run_dir=out", "steps=3", "+job={}",
        environ={"PYTHONPATH": f"{package.parent}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 78
    assert "strategy=deepspeed needs deepspeed, which is not installed: pip install 'hpc[deepspeed]'." in done.stderr

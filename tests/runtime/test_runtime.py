"""The loop of the README, in one process and in several: same numbers, same words."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from hpc import Runtime
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import ConfigurationError, LoadError
from tests.conftest import Run
from tests.programs.jobs import Points
from tests.support.process_state import in_another_process


def config(directory: Path, **sections: Any) -> dict[str, Any]:
    return {"run_dir": str(directory), "runtime": {"device": "cpu"}, **sections}


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def train(settings: dict[str, Any], steps: int, batch_size: int = 8, lr: float = 0.05) -> tuple[nn.Module, Runtime]:
    with Runtime(settings) as runtime:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        loader = DataLoader(Points(), batch_size=batch_size, shuffle=True)
        model, optimizer, loader = runtime.prepare(model, optimizer, loader)
        for points, classes in runtime.steps(loader, total=steps):
            with runtime.accumulate():
                loss = nn.functional.cross_entropy(model(points), classes)
                runtime.backward(loss)
                runtime.clip_grad_norm_(1.0)
                optimizer.step()
                optimizer.zero_grad()
            runtime.log(loss=loss)
    return model, runtime


def metrics(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_loop_learns_and_writes_down_every_step(tmp_path: Path) -> None:
    train(config(tmp_path), steps=60)
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.8 * rows[0]["loss"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_second_call_of_a_done_loop_trains_nothing(tmp_path: Path) -> None:
    first, _ = train(config(tmp_path), steps=20)
    in_another_process()
    second, _ = train(config(tmp_path), steps=20)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert len(metrics(tmp_path)) == 20


def test_more_steps_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    whole, _ = train(config(tmp_path / "whole"), steps=50)
    train(config(tmp_path / "parts"), steps=30)
    parts, runtime = train(config(tmp_path / "parts"), steps=50)
    assert runtime.step == 50
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_accumulating_is_the_same_step_in_smaller_pieces(tmp_path: Path) -> None:
    whole, _ = train(config(tmp_path / "whole"), steps=20, batch_size=8)
    pieces, _ = train(config(tmp_path / "pieces", strategy={"accumulation_steps": 4}), steps=20, batch_size=2)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)  # the same sums, added in another order, in fp32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_too(tmp_path: Path, precision: str) -> None:
    model, runtime = train(config(tmp_path, strategy={"precision": precision}), steps=60)
    rows = metrics(tmp_path)
    assert np.mean([row["loss"] for row in rows[-10:]]) < 0.8 * rows[0]["loss"]
    assert model(torch.zeros(1, 16)).dtype is runtime.precision.dtype
    assert ("scaler" in runtime.training_state.others) == (precision == "fp16")


def test_an_overflowing_gradient_skips_optimizer_and_scheduler_alike(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, strategy={"precision": "fp16"})) as runtime:
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        model, optimizer, scheduler = runtime.prepare(model, optimizer, scheduler)
        before = model.weight.detach().clone()
        for factor, expected_lr in ((math.inf, 1.0), (1.0, 0.5)):
            with runtime.accumulate():
                runtime.backward(model(torch.ones(2, 4)).float().mean() * factor)
                runtime.clip_grad_norm_(1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            assert optimizer.param_groups[0]["lr"] == expected_lr
            assert torch.equal(model.weight, before) == (factor == math.inf)


def test_clipping_sees_unscaled_gradients(tmp_path: Path) -> None:
    with Runtime(config(tmp_path, strategy={"precision": "fp16"})) as runtime:
        layer = nn.Linear(4, 1, bias=False)
        model, optimizer = runtime.prepare(layer, torch.optim.SGD(layer.parameters(), 1.0))
        with runtime.accumulate():
            runtime.backward(model(torch.ones(1, 4)).float().sum() / 4)
            norm = runtime.clip_grad_norm_(0.1)
            optimizer.step()
    assert norm is not None
    torch.testing.assert_close(norm, torch.tensor(0.5), rtol=1e-3, atol=0)


def test_what_the_user_registers_is_restored(tmp_path: Path) -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.count = state_dict["count"]

    counts = []
    for total in (5, 8):
        with Runtime(config(tmp_path)) as runtime:
            counter = Counter()
            runtime.register("counter", counter)
            for _ in runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=total):
                counter.count += 1
        counts.append(counter.count)
    assert counts == [5, 8]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(config(tmp_path), steps=5)
    with Runtime(config(tmp_path)) as runtime:
        _, loader = runtime.prepare(nn.Linear(3, 3), DataLoader(Points(), 4))
        steps = runtime.steps(loader, total=9)
        with pytest.raises(LoadError, match="does not fit what is being trained"):
            next(steps)
    assert CheckpointStore(tmp_path / "checkpoints").list()[0].step == 5


def test_gather_gives_scalars_a_dimension(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        assert runtime.gather(torch.tensor(3.0)).tolist() == [3.0]
        assert runtime.gather(torch.ones(2, 3)).shape == (2, 3)
        assert (runtime.num_processes, runtime.process_index, runtime.is_main_process) == (1, 0, True)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda runtime: runtime.prepare("a model"), "prepare takes modules, optimizers, schedulers and DataLoaders"),
        (lambda runtime: runtime.steps(DataLoader(Points(), 4), total=3), "steps takes a loader that prepare returned"),
        (lambda runtime: runtime.log(loss=1.0), "runtime.log needs a step to belong to"),
        (lambda runtime: runtime.register("rng", random.Random(0)), "load_state_dict, but rng is of type Random"),
        (lambda runtime: runtime.register("best", nn.Linear), "load_state_dict, but best is the class Linear"),
        (lambda runtime: runtime.prepare(nn.LazyLinear(2)), "weight of the LazyLinear gets its own in the first"),
        (lambda runtime: runtime.prepare(nn.ReLU()), "the ReLU has none: leave it out"),
        (lambda runtime: runtime.prepare(nn.BatchNorm1d(2, affine=False)), "the BatchNorm1d has none: register it"),
    ],
)
def test_misuse_is_one_sentence(tmp_path: Path, misuse: Any, words: str) -> None:
    with Runtime(config(tmp_path)) as runtime, pytest.raises(ConfigurationError, match=words):
        misuse(runtime)


def test_a_device_that_is_not_here_is_named(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(
        ConfigurationError, match=r"runtime.device must be one that torch finds here \(.*cpu\), but is cuda"
    ):
        Runtime({"run_dir": str(tmp_path), "runtime": {"device": "cuda"}})


@pytest.mark.gloo
def test_ranks_times_accumulation_is_one_global_batch(run_py: Run, tmp_path: Path) -> None:
    """One rank accumulating four micro-batches, two ranks accumulating two, and four ranks train the same model."""
    finals = []
    for ranks, accumulation in ((1, 4), (2, 2), (4, 1)):
        done = run_py(
            "-m", "hardware=cpu", "cluster=local", f"hardware.tasks_per_node={ranks}", f"run_dir=ranks{ranks}",
            f"strategy.accumulation_steps={accumulation}", "steps=15", "+job={}",
            "experiment.target=tests.programs.jobs.train_exactly",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (checkpoint,) = CheckpointStore(tmp_path / f"ranks{ranks}" / "0" / "checkpoints").list()
        finals.append(load_file(checkpoint.directory / "model.safetensors"))
    for name, weights in finals[0].items():
        for other in finals[1:]:
            torch.testing.assert_close(
                weights, other[name], rtol=1e-12, atol=1e-12
            )  # fp64: only the order of sums differs


@pytest.mark.gloo
def test_one_rank_is_all_that_strategy_single_takes(run_py: Run) -> None:
    done = run_py(
        "-m", "hardware=cpu", "cluster=local", "strategy=single", "run_dir=out", "steps=3",
        "experiment.target=tests.programs.jobs.train", "+job={}",
    )  # fmt: skip
    assert done.returncode == 78
    assert "strategy=single must have a world of one, but the world has 2 ranks" in done.stderr


def test_a_logged_tensor_is_what_it_was_when_it_was_logged(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        total = torch.zeros(())
        for _ in runtime.steps(runtime.prepare(DataLoader(Points(), 4)), total=3):
            total += 1
            runtime.log(total=total)
    assert [row["total"] for row in metrics(tmp_path)] == [1, 2, 3]

"""Epochs: each sample once in each, shuffled anew, evaluation between, and an exact resume in the middle of one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.stop.requests import StopCause, stop_requests
from tests.runtime.test_runtime import config, metrics
from tests.support.process_state import in_another_process

Seen = list[tuple[str, int, list[int]]]


def life(
    directory: Path, seen: Seen, total: int = 3, stop: int = 0, accumulation: int = 1, **options: Any
) -> torch.Tensor:
    """Train on ten numbers, three at a time, and evaluate after each epoch; a signal comes in the step `stop`."""
    settings = config(directory, strategy={"accumulation_steps": accumulation})
    with Runtime(settings) as runtime:
        layer = nn.Linear(1, 1)
        loader = DataLoader(TensorDataset(torch.arange(10.0)[:, None]), 3, shuffle=True, **options)
        model, optimizer, loader = runtime.prepare(layer, torch.optim.SGD(layer.parameters(), 0.001), loader)
        for epoch in runtime.epochs(loader, total=total):
            for (x,) in epoch:
                seen.append(("step", epoch, x.flatten().int().tolist()))
                loss = (model(x) - x).square().mean()
                runtime.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                runtime.log(loss=loss)
                if runtime.sync_gradients and runtime.step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
            seen.append(("evaluation", epoch, [runtime.step]))
            runtime.log(weight=layer.weight.sum())
        return layer.weight.detach().clone()


@pytest.mark.parametrize(("accumulation", "steps"), [(1, [4, 8, 12]), (2, [2, 4, 6]), (3, [2, 4, 6])])
def test_an_epoch_is_every_sample_once_and_whole_steps(tmp_path: Path, accumulation: int, steps: list[int]) -> None:
    seen: Seen = []
    life(tmp_path, seen, accumulation=accumulation)
    orders = []
    for epoch in range(3):
        batches = [batch for kind, number, batch in seen if kind == "step" and number == epoch]
        assert [len(batch) for batch in batches] == [3, 3, 3, 1]
        orders.append([sample for batch in batches for sample in batch])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1] != orders[2]
    assert [batch for kind, _, batch in seen if kind == "evaluation"] == [[step] for step in steps]


def test_drop_last_leaves_the_short_batch_out(tmp_path: Path) -> None:
    seen: Seen = []
    life(tmp_path, seen, total=1, drop_last=True)
    assert [len(batch) for kind, _, batch in seen if kind == "step"] == [3, 3, 3]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_epoch_is_resumed_in_its_middle_and_at_its_end(tmp_path: Path, accumulation: int) -> None:
    """What was evaluated twice was stopped between the last step of an epoch and its evaluation."""
    whole: Seen = []
    last = life(tmp_path / "whole", whole, accumulation=accumulation)
    parts: Seen = []
    for stop in (1, 2, 3, 4):
        with pytest.raises(SystemExit, match="75"):
            life(tmp_path / "parts", parts, stop=stop, accumulation=accumulation)
        stop_requests().cause = StopCause.NONE
    assert torch.equal(life(tmp_path / "parts", parts, accumulation=accumulation), last)
    assert parts == whole
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    in_another_process()
    again: Seen = []
    life(tmp_path / "parts", again, accumulation=accumulation)
    assert [kind for kind, _, _ in again] == ["evaluation"]


def test_more_epochs_go_on_from_the_last_one(tmp_path: Path) -> None:
    whole: Seen = []
    expected = life(tmp_path / "whole", whole)
    parts: Seen = []
    life(tmp_path / "parts", parts, total=2)
    assert torch.equal(life(tmp_path / "parts", parts), expected)
    assert [each for each in parts if each[0] == "step"] == [each for each in whole if each[0] == "step"]


def test_an_epoch_that_is_left_is_over_and_the_loop_goes_on(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        layer = nn.Linear(1, 1)
        loader = DataLoader(TensorDataset(torch.arange(10.0)[:, None]), 3)
        model, optimizer, loader = runtime.prepare(layer, torch.optim.SGD(layer.parameters(), 0.001), loader)
        steps = []
        for epoch in runtime.epochs(loader, total=3):
            for (x,) in epoch:
                runtime.backward(model(x).mean())
                optimizer.step()
                if len(x) == 3 and runtime.step % 2 == 0:
                    break
            steps.append(runtime.step)
        assert steps == [2, 4, 6]


def test_an_epoch_is_iterated_inside_its_turn(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        loader = runtime.prepare(DataLoader(TensorDataset(torch.zeros(4, 1)), 2))
        kept = [(epoch, len([*epoch]))[0] for epoch in runtime.epochs(loader, total=2)]
        assert kept == [0, 1]
        with pytest.raises(ConfigurationError, match="Epoch 0 is over"):
            iter(kept[0])


def test_an_epoch_is_iterated_once_and_not_past(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        loader = runtime.prepare(DataLoader(TensorDataset(torch.zeros(4, 1)), 2))
        for epoch in runtime.epochs(loader, total=1):
            assert len([*epoch]) == 2
            with pytest.raises(ConfigurationError, match="Epoch 0 has given all its micro-batches: iterate the prep"):
                iter(epoch)
        with pytest.raises(ConfigurationError, match="but epoch 0 was not iterated: write `for epoch in"):
            assert [len([*loader]) for _ in runtime.epochs(loader, total=2, name="past")] == []


class Endless(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(8))


def test_epochs_need_a_length(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        loader = runtime.prepare(DataLoader(Endless(), 2))
        with pytest.raises(ConfigurationError, match=r"runtime\.epochs must have a loader over a map-style data set"):
            runtime.epochs(loader, total=2)
        with pytest.raises(ConfigurationError, match="must be a whole number of epochs"):
            runtime.epochs(loader, total=0.5)  # type: ignore[arg-type]


def test_rows_of_an_epoch_carry_the_runs_step(tmp_path: Path) -> None:
    life(tmp_path, [], total=2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "loss" in row) for row in rows] == [
        *((step, True) for step in (1, 2, 3, 4)),
        (4, False),
        *((step, True) for step in (5, 6, 7, 8)),
        (8, False),
    ]

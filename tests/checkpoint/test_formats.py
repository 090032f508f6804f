"""Checkpoints of older formats load. `format_1` was written by version 0.1: two steps of what `_trained` builds."""

from __future__ import annotations

import collections
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpc.checkpoint.export import export
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore, damage
from tests.support.saves import Alone

RECORDED = Path(__file__).parent / "format_1"


class Extra(nn.Linear):
    count = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.count = state["count"]


class Counter:
    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def fresh() -> TrainingState:
    """What was trained, before it was; the scheduler's name is the one that it has today."""
    model = nn.Sequential(Extra(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))
    model.add_module("tied", nn.Linear(2, 2, bias=False))
    model.get_submodule("tied").register_parameter("weight", model.get_parameter("2.weight"))
    groups: list[dict[str, Any]] = [
        {"params": model[0].parameters(), "lr": 0.5},
        {"params": [model.get_parameter("2.weight")]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.25)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    return TrainingState([model], [optimizer], {"user.counter": Counter(), "scheduler.0": scheduler})


def check(state: TrainingState, trainer: dict[str, Any]) -> None:
    model, optimizer = state.models[0], state.optimizers[0]
    for number, tensor in enumerate((*model.parameters(), *model.buffers())):
        assert tensor.flatten().tolist() == [number + place for place in range(tensor.numel())]
    assert model.get_submodule("0").count == 3
    weight = model.get_parameter("2.weight")
    assert torch.equal(optimizer.state[weight]["exp_avg"], torch.full((2, 2), 0.1))
    assert optimizer.state[weight]["step"] == 1
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]
    assert state.others["scheduler.0"].state_dict()["last_epoch"] == 1
    counter = state.others["user.counter"].state_dict()
    assert counter["count"] == 5
    assert counter["seen"] == collections.OrderedDict(a=(1, 2.5))
    assert counter["weights"].tolist() == [0.0, 1.0, 2.0]
    assert {name: trainer[name] for name in ("step", "samples", "global_batch_size")} == {
        "step": 2, "samples": 16, "global_batch_size": 8,
    }  # fmt: skip
    assert trainer["ranks"][0]["position"] is None
    assert {"python", "numpy", "torch", "cuda"} == trainer["ranks"][0]["random"].keys()


def test_a_checkpoint_of_format_1_loads_and_is_saved_again_as_todays(tmp_path: Path) -> None:
    shutil.copytree(RECORDED, tmp_path / "checkpoints")
    store, state, said = CheckpointStore(tmp_path / "checkpoints"), fresh(), list[str]()
    (old,) = store.list()
    assert damage(old) == []
    found = load_latest(store, state, Alone(), said.append)
    assert found is not None, said
    check(state, found.trainer)
    store.acquire()
    shared = {name: found.trainer[name] for name in ("step", "samples", "global_batch_size")}
    commit(store, Alone(), snapshot(state, 3, 0, shared, {}))
    again = fresh()
    newer = load_latest(store, again, Alone(), said.append)
    assert newer is not None, said
    assert newer.checkpoint.step == 3
    check(again, newer.trainer)


def test_weights_of_any_format_are_exported_whatever_else_a_model_keeps(tmp_path: Path) -> None:
    (old,) = CheckpointStore(RECORDED).list()
    export(old, tmp_path / "model.pt", "pt")
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["tied.weight"].tolist() == weights["2.weight"].tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert "0._extra_state" not in weights

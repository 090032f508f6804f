"""Attributes that training changes and no state dict holds are told of, and nothing else is."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpc.checkpoint.unsaved import LOOKS, Unsaved


@dataclass
class Seen:
    """State in a dataclass."""

    sizes: list[int] = field(default_factory=list)


class Keeper(nn.Module):
    """A module with something of its own.

    Args:
        kept: What it begins with.
        change: What its forward pass does.
    """

    def __init__(self, kept: Any, change: Callable[[Keeper], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(2), persistent=False)
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(2))
        self.kept, self.change = kept, change

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Of [n, 2]."""
        self.change(self)
        self.seen += 1
        return torch.as_tensor(self.layer(inputs))


class Saver(Keeper):
    """One that saves what it has."""

    def get_extra_state(self) -> Any:
        """For its state dict."""
        return self.kept

    def set_extra_state(self, state: Any) -> None:
        """From there."""
        self.kept = state


class Counting(torch.optim.SGD):
    """An optimizer with a count of its own."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        """One step."""
        self.count += 1
        return super().step(closure)


class Saving(Counting):
    """One that saves its count."""

    def state_dict(self) -> dict[str, Any]:
        """With the count."""
        return {**super().state_dict(), "count": self.count}


def told(model: nn.Module, optimizer: torch.optim.Optimizer, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said at the saves after some steps."""
    unsaved, models, optimizers = Unsaved(), [nn.Sequential(model)], [optimizer]
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for step in range(LOOKS + 2):
        models[0](torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            unsaved.begin(models, optimizers)
        unsaved.look(models, optimizers)
    return capsys.readouterr().err


def keep(value: Any) -> Callable[[Keeper], None]:
    return lambda module: setattr(module, "kept", value(module))


CHANGES: dict[str, tuple[Any, Callable[[Keeper], object], str]] = {
    "a count": (0, keep(lambda module: module.kept + 1), "0.kept"),
    "a running mean": (torch.zeros(2), keep(lambda module: module.kept * 0.9 + 1), "0.kept"),
    "a tensor that is changed in place": (torch.zeros(3), lambda module: module.kept.add_(1), "0.kept"),
    "a buffer that is not persistent": (0, lambda module: module.mean.add_(1), "0.mean"),
    "torch's generator": (torch.Generator(), lambda module: torch.rand(1, generator=module.kept), "0.kept"),
    "numpy's generator": (np.random.default_rng(0), lambda module: module.kept.random(), "0.kept"),
    "Python's generator": (random.Random(0), lambda module: module.kept.random(), "0.kept"),
    "an array": (np.zeros(2), lambda module: module.kept.__iadd__(1), "0.kept"),
    "a queue of tensors": (deque(maxlen=9), lambda module: module.kept.append(torch.ones(1)), "0.kept"),
    "a dataclass": (Seen(), lambda module: module.kept.sizes.append(1), "0.kept"),
    "a dict of counts": ({"a": 0}, lambda module: module.kept.update(a=module.kept["a"] + 1), "0.kept"),
}  # fmt: skip


@pytest.mark.parametrize(("kept", "change", "name"), CHANGES.values(), ids=CHANGES)
def test_what_changes_and_is_in_no_state_dict_is_told_once(
    kept: Any, change: Callable[[Keeper], object], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Keeper(kept, change)
    said = told(model, torch.optim.AdamW(model.parameters()), capsys)
    assert said.count("state_dict leaves out attributes") == 1
    assert f"begins with them anew: {name}; where a later step" in said


def test_an_optimizers_own_count_is_told_unless_it_saves_it(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 2)
    assert "anew: optimizer.count; where" in told(model, Counting(model.parameters(), lr=0.1), capsys)
    assert told(model, Saving(model.parameters(), lr=0.1), capsys) == ""


def of_autograd(module: Keeper) -> None:
    module.kept = module.layer.weight * 2


def made_at_first_use(module: Keeper) -> None:
    module.kept = torch.ones(3)


@pytest.mark.parametrize("change", [of_autograd, made_at_first_use, lambda _: None])
@pytest.mark.parametrize("kept", [None, [nn.Linear(2, 2).weight], print, {"layers": [nn.Linear(2, 2)]}], ids=type)
def test_what_is_no_state_is_not_told(
    kept: Any, change: Callable[[Keeper], object], capsys: pytest.CaptureFixture[str]
) -> None:
    model = Keeper(kept, change)
    for optimizer in (torch.optim.AdamW(model.parameters()), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)):
        assert told(model, optimizer, capsys) == ""


def test_what_a_module_saves_itself_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    model = Saver(0, keep(lambda module: module.kept + 1))
    assert told(model, torch.optim.AdamW(model.parameters()), capsys) == ""

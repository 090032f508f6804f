"""What two ranks are told by hpc and by Accelerate, on the same inputs; rank 0 writes it into answers.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpc import Runtime
from hpc.errors import ConfigurationError


def plain(value: Any) -> Any:
    """Tensors as lists."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def part(here: Any, inputs: Any, **options: Any) -> Any:
    with here.split_between_processes(inputs, **options) as mine:
        return mine


def told(here: Any, rank: int) -> dict[str, Any]:
    """The same calls for both."""
    tensor = torch.arange(3.0) + 10 * rank
    uneven = torch.ones(2 + rank, 2)
    calls: dict[str, Callable[[], Any]] = {
        "sum": lambda: here.reduce(tensor),
        "mean": lambda: here.reduce({"a": tensor, "b": [tensor * 2]}, reduction="mean"),
        "sum of integers": lambda: here.reduce(torch.tensor([rank, 3])),
        "scalar": lambda: here.reduce(torch.tensor(rank + 0.5), "sum"),
        "padded": lambda: here.pad_across_processes(uneven, pad_index=-1),
        "padded first": lambda: here.pad_across_processes((uneven, tensor), pad_first=True),
        "padded along 1": lambda: here.pad_across_processes(uneven.T, dim=1),
        "padded along -1": lambda: here.pad_across_processes(uneven.T, dim=-1),
        "nothing to pad": lambda: here.pad_across_processes(tensor, dim=3),
        "list": lambda: part(here, ["a", "b", "c"]),
        "filled list": lambda: part(here, ["a", "b", "c"], apply_padding=True),
        "filled few": lambda: part(here, ["a"], apply_padding=True),
        "few": lambda: part(here, ["a"]),
        "tuple": lambda: part(here, (1, 2, 3, 4, 5)),
        "tensor": lambda: part(here, torch.arange(5)),
        "filled tensor": lambda: part(here, torch.arange(5), apply_padding=True),
        "mapping": lambda: part(here, {"x": [1, 2, 3], "y": torch.arange(3)}),
        "main": lambda: here.on_main_process(lambda: "ran")(),
        "local main": lambda: here.on_local_main_process(lambda: "ran")(),
        "last": lambda: here.on_last_process(lambda: "ran")(),
        "second": lambda: here.on_process(process_index=1)(lambda: "ran")(),
        "second here": lambda: here.on_local_process(lambda: "ran", local_process_index=1)(),
        "places": lambda: [here.is_local_main_process, here.is_last_process, here.local_process_index],
        "no trigger": here.check_trigger,
        "trigger": lambda: [here.set_trigger() if rank else None, here.check_trigger(), here.check_trigger()],
    }
    return {name: plain(call()) for name, call in calls.items()}


def refused(here: Runtime, rank: int) -> dict[str, str]:
    """What only hpc says, and on which ranks."""
    calls: dict[str, Callable[[], Any]] = {
        "unlike shapes": lambda: here.reduce(torch.ones(2 + rank)),
        "unlike dimensions": lambda: here.pad_across_processes(torch.ones((2,) * (1 + rank))),
    }
    return {name: sentence(call) for name, call in calls.items()}


def sentence(call: Callable[[], Any]) -> str:
    try:
        return f"took it: {call()}"
    except ConfigurationError as error:
        return str(error)


def order(here: Any, path: Path, rank: int) -> list[str]:
    """Who goes first."""
    with here.main_process_first(), path.open("a") as file:
        file.write(f"{rank}\n")
    here.wait_for_everyone()
    return path.read_text().split()


def gradients(directory: Path, strategy: str, rank: int) -> dict[str, Any]:
    """Clipped elements, gradients that stay on their ranks, and the whole weights afterwards."""
    config = {
        "run_dir": str(directory / strategy),
        "runtime": {"device": "cpu", "trackers": []},
        "strategy": {"name": strategy},
    }
    torch.manual_seed(3)
    layer = nn.Linear(3, 2)
    with Runtime(config) as runtime:
        model, optimizer = runtime.prepare(layer, torch.optim.SGD(layer.parameters(), 0.1))
        x = torch.arange(6.0).reshape(2, 3) + rank
        with runtime.no_sync(model):
            runtime.backward(model(x).square().mean())
        runtime.backward(model(x + 1).square().mean())
        runtime.clip_grad_value_(model.parameters(), 2.0)
        optimizer.step()
        return plain(runtime.get_state_dict(model))  # type: ignore[no-any-return]


def main(directory: Path) -> None:
    config = {"run_dir": str(directory / "run"), "runtime": {"device": "cpu", "trackers": []}}
    with Runtime(config) as runtime:
        rank = runtime.process_index
        accelerator = import_module("accelerate").Accelerator(cpu=True)
        answers: dict[str, Any] = {
            "hpc": runtime.group.all_gather(told(runtime, rank)),
            "accelerate": runtime.group.all_gather(told(accelerator, rank)),
            "refused": runtime.group.all_gather(refused(runtime, rank)),
            "order": order(runtime, directory / "order", rank),
        }
    for strategy in ("ddp", "fsdp"):
        answers[strategy] = gradients(directory, strategy, rank)
    if rank == 0:
        (directory / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Training functions that compare strategies: every rank runs them, rank 0 writes down what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.strategy.fsdp import clip_sharded
from tests.programs.jobs import Points
from tests.programs.strategy_models import IN_HALF, SCALED, TORCH, ZERO, Sentences, Settings, Stack


def train_stack(settings: Settings, batch_size: int, steps: int = 6) -> dict[str, Any]:
    """Train a Stack; returns the global batch's loss and the gradient's norm, step by step, and the model's names."""
    losses, norms = [], []
    with Runtime(settings) as runtime:
        model = Stack()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = StepLR(optimizer, 3, 0.5)
        loader = DataLoader(Points(), batch_size=batch_size, shuffle=True)
        loader, optimizer, model, scheduler = runtime.prepare(loader, optimizer, model, scheduler)
        for points, classes in runtime.steps(loader, total=steps):
            with runtime.accumulate():
                loss = nn.functional.cross_entropy(model(points).float(), classes)
                runtime.backward(loss)
                norm = runtime.clip_grad_norm_(0.5)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            losses.append(runtime.gather(loss).mean().item())
            norms += [] if norm is None else [norm.item()]
        names = list(runtime.unwrap(model).state_dict())
        size = runtime.window.size
    return {"loss": _means(losses, size), "norm": norms, "names": names}


def train_sentences(settings: Settings, batch_size: int, steps: int = 4) -> list[float]:
    """Train on micro-batches of unequal numbers of tokens; returns the gradient's norms."""
    norms = []
    with Runtime(settings) as runtime:
        model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
        loader = DataLoader(Sentences(), batch_size=batch_size, shuffle=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model, loader, optimizer = runtime.prepare(model, loader, optimizer)
        for points, classes in runtime.steps(loader, total=steps, weigh=lambda batch: (batch[1] >= 0).sum()):
            with runtime.accumulate():
                runtime.backward(nn.functional.cross_entropy(model(points).flatten(0, 1), classes.flatten()))
                norm = runtime.clip_grad_norm_(100.0)
                optimizer.step()
                optimizer.zero_grad()
            norms += [] if norm is None else [norm.item()]
    return norms


def train_in_half(cfg: Any, cases: dict[str, tuple[str, Settings]]) -> dict[str, Any]:
    """The same steps with 16 bits."""
    return {
        name: train_stack(settings_of(cfg, f"{name} in half", {**case, "precision": precision}), 4)
        for name, (precision, case) in cases.items()
    }


def resumed(cfg: Any, first: Settings, second: Settings) -> dict[str, Any]:
    """Three steps under one strategy, and three more under another; returns what the latter saw."""
    folder = f"from {first} to {second}".translate(str.maketrans(" {}':,", "______"))
    train_stack(settings_of(cfg, folder, first), batch_size=4, steps=3)
    return train_stack(settings_of(cfg, folder, second), batch_size=4, steps=6)


def overflow_on_one_rank(settings: Settings) -> list[Any]:
    """Two fp16 steps, of which the last rank's first overflows: what every rank has afterwards, step by step."""
    seen = []
    with Runtime(settings) as runtime:
        model = Stack()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        model, optimizer, scheduler = runtime.prepare(model, optimizer, StepLR(optimizer, 1, 0.5))
        before = _weights(model)
        for factor in (math.inf if runtime.process_index == 1 else 1.0, 1.0):
            with runtime.accumulate():
                runtime.backward(model(torch.ones(2, 16)).float().mean() * factor)
                runtime.clip_grad_norm_(1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            stayed = torch.equal(_weights(model), before)
            scale = runtime.precision.state_dict()["scale"]
            seen.append(runtime.group.all_gather([stayed, optimizer.param_groups[0]["lr"], scale]))
    return seen


def clip_mixture(settings: Settings) -> dict[str, Any]:
    """Clip sharded and whole parameters together; returns both norms and what is left of the gradients."""
    with Runtime(settings) as runtime:
        model = runtime.prepare(nn.Linear(16, 4))
        whole = nn.Parameter(torch.ones(3))
        (model(torch.ones(2, 16)).sum() + 5 * whole.sum()).backward()
        sharded = list(model.parameters())
        gradients = [parameter.grad.full_tensor().flatten() for parameter in sharded]
        norm = torch.cat([*gradients, torch.full((3,), 5.0)]).norm()
        found = clip_sharded([*sharded, whole], 1.0)
        after = torch.cat([*(each.grad.full_tensor().flatten() for each in sharded), whole.grad]).norm()  # type: ignore[list-item]
        return {"norm": norm.item(), "found": runtime.group.all_gather(found.tolist()), "after": after.item()}


def recomputed_blocks(settings: Settings) -> int:
    """How often blocks are computed in one forward and backward pass."""
    with Runtime(settings) as runtime:
        model, computed = runtime.prepare(Stack()), []
        for block in model.blocks:
            block.norm.register_forward_hook(lambda *_: computed.append(1))
        runtime.backward(model(torch.ones(2, 16)).sum())
        return len(computed)


def around_a_module(settings: Settings) -> dict[str, Any]:
    """What can be seen of a module through what DDP makes of it, and what is said when a layer of it is replaced."""
    with Runtime(settings) as runtime:
        module: Any = Stack()
        module.scale = 1
        module.register_buffer("spread", torch.ones(1).expand(3))
        sparse = Stack()
        sparse.register_buffer("kept", torch.eye(2).to_sparse())
        model = runtime.prepare(module)
        again = runtime.prepare(model, module)
        module.first.requires_grad_(False)
        runtime.backward(model(torch.ones(2, 16)).sum())  # wired anew
        model.scale, model.other = model.scale + 1, 3
        module.last = nn.Linear(32, 4)
        for _ in range(2):
            said = _refusal(lambda: runtime.backward(model(torch.ones(2, 16)).sum()))
        return {
            "same": all(each is model for each in again),
            "scale": module.scale,
            "other": hasattr(module, "other"),
            "said": said,
            "spread": module.spread.tolist(),
            "sparse": _refusal(lambda: runtime.prepare(sparse)),
        }


def refusals_of_fsdp(settings: Settings) -> dict[str, str]:
    """What is said about what cannot be sharded."""
    scalar = nn.Linear(4, 4)
    scalar.temperature = nn.Parameter(torch.tensor(1.0))
    stepped = Stack()
    optimizer = torch.optim.AdamW(stepped.parameters())
    stepped(torch.ones(2, 16)).sum().backward()
    optimizer.step()
    blocks = {**settings, "strategy": {"name": "fsdp", "blocks": ["Residual", "Attention"]}}
    with Runtime(settings) as runtime:
        prepared = runtime.prepare(Stack())
        return {
            "unknown block": _refusal(lambda: Runtime(blocks).prepare(Stack())),
            "scalar": _refusal(lambda: runtime.prepare(scalar)),
            "stepped": _refusal(lambda: runtime.prepare(stepped, optimizer)),
            "stranger": _refusal(lambda: runtime.prepare(torch.optim.SGD(Stack().parameters(), 0.1))),
            "twice": _refusal(lambda: Runtime(settings).prepare(prepared)),
        }


def refusals_of_engines(settings: Settings) -> dict[str, str]:
    """What is said about what an engine cannot take."""
    with Runtime(settings) as runtime:
        model = Stack()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        alone = _refusal(lambda: runtime.prepare(model))
        runtime.prepare(model, optimizer)
        runtime.accumulate()
        return {
            "no optimizer": alone,
            "second": _refusal(lambda: runtime.prepare(other := Stack(), torch.optim.SGD(other.parameters(), 0.1))),
            "some parameters": _refusal(lambda: runtime.clip_grad_norm_(1.0, model.last.parameters())),
        }


def alone(cfg: Any) -> float:
    """What one process computes, on whole batches."""
    stack = train_stack(settings_of(cfg, "stack", {}), batch_size=8)
    sentences = train_sentences(settings_of(cfg, "sentences", {}), batch_size=16)
    engine = train_stack(settings_of(cfg, "engine", ZERO["zero 1"]), batch_size=8)
    return write(cfg, {"stack": stack, "sentences": sentences, "engine": engine})


def torch_strategies(cfg: Any) -> float:
    """Everything about torch's own strategies that takes several ranks."""
    fsdp = settings_of(cfg, "parts", TORCH["fsdp"])
    recomputed = settings_of(cfg, "recomputed", {**TORCH["fsdp"], "activation_checkpointing": True})
    results: dict[str, Any] = {
        "stack": _with_and_without_accumulation(cfg, TORCH),
        "overflow": {name: overflow_on_one_rank(settings_of(cfg, f"o {name}", case)) for name, case in SCALED.items()},
        "sentences": {name: train_sentences(settings_of(cfg, f"s {name}", {**TORCH[name], "accumulation_steps": 2}), 4)
                      for name in ("ddp", "fsdp")},
        "half": train_in_half(cfg, {name: each for name, each in IN_HALF.items() if "zero" not in name}),
        "resumed": {
            f"{first}, then {second}": resumed(cfg, TORCH[first], TORCH[second])
            for first in ("ddp", "fsdp in two copies")
            for second in ("ddp", "fsdp by size, offloaded")
        },
        "mixture": clip_mixture(fsdp),
        "recomputed": recomputed_blocks(recomputed),
        "around": around_a_module(settings_of(cfg, "around", TORCH["ddp"])),
        "refusals": refusals_of_fsdp(fsdp),
    }  # fmt: skip
    return write(cfg, results)


def zero_stages(cfg: Any) -> float:
    """The same steps by DeepSpeed's engine."""
    tokens = settings_of(cfg, "sentences", {**ZERO["zero 2"], "accumulation_steps": 2})
    results = {
        "stack": _with_and_without_accumulation(cfg, ZERO),
        "sentences": {"zero 2": train_sentences(tokens, 4)},
        "half": train_in_half(cfg, {name: each for name, each in IN_HALF.items() if "zero" in name}),
        "scaled": _refusal(lambda: train_in_half(cfg, {"zero 2, scaled": ("fp16", ZERO["zero 2"])})),
        "refusals": refusals_of_engines(settings_of(cfg, "refusals", ZERO["zero 1"])),
        "resumed": {name: resumed(cfg, ZERO[name], ZERO[name]) for name in ("zero 2", "zero 3, recomputed")},
    }
    return write(cfg, results)


def two_by_two(cfg: Any) -> float:
    """Two copies of the model, each divided among two ranks, beside four whole ones."""
    hybrid = {"name": "fsdp", "shard_size": 2}
    results = {
        "ddp": train_stack(settings_of(cfg, "ddp", TORCH["ddp"]), batch_size=2),
        "hybrid": train_stack(settings_of(cfg, "hybrid", hybrid), batch_size=2),
        "overflow": overflow_on_one_rank(settings_of(cfg, "overflow", {**hybrid, "precision": "fp16"})),
    }
    return write(cfg, results)


def settings_of(cfg: Any, folder: str, strategy: Settings) -> Settings:
    """The launch's settings, with another strategy and a run directory of its own."""
    return {
        "run_dir": str(Path(cfg.run_dir).absolute() / folder.replace(" ", "_")),
        "runtime": {"device": "cpu"},
        "checkpoint": {"every_steps": 1000},
        "strategy": strategy,
    }


def write(cfg: Any, results: dict[str, Any]) -> float:
    """Leave the results for the test, on rank 0."""
    with Runtime(settings_of(cfg, "write", {})) as runtime:
        if runtime.is_main_process:
            (Path(cfg.run_dir).absolute().parent / "results.json").write_text(json.dumps(results))
    return 0.0


def _with_and_without_accumulation(cfg: Any, cases: dict[str, Settings]) -> dict[str, Any]:
    results = {}
    for name, case in cases.items():
        results[name] = train_stack(settings_of(cfg, name, case), batch_size=4)
        accumulated = settings_of(cfg, f"{name} accumulated", {**case, "accumulation_steps": 2})
        results[f"{name}, accumulated"] = train_stack(accumulated, batch_size=2)
    return results


def _means(values: list[float], count: int) -> list[float]:
    return [sum(values[start : start + count]) / count for start in range(0, len(values), count)]


def _weights(model: nn.Module) -> torch.Tensor:
    """What this rank has of the first parameter."""
    first = next(iter(model.parameters())).detach()
    return (first.to_local() if isinstance(first, DTensor) else first).clone()


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except ConfigurationError as error:
        return str(error)
    return "accepted"

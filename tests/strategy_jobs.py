"""Training functions that compare strategies: every rank runs them, rank 0 writes down what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.examples import digits
from hpc.runtime.strategy.fsdp import clip_sharded
from tests.jobs import Points

Settings = dict[str, Any]

WITHOUT_COMPILER = {"compile": True, "compile_backend": "aot_eager"}
TORCH: dict[str, Settings] = {
    "ddp": {"name": "ddp"},
    "ddp, compiled": {"name": "ddp", **WITHOUT_COMPILER},
    "ddp, recomputed": {"name": "ddp", "activation_checkpointing": True},
    "fsdp": {"name": "fsdp"},
    "fsdp by class": {"name": "fsdp", "blocks": ["Residual"], "reshard_after_forward": False},
    "fsdp by size, offloaded": {"name": "fsdp", "min_block_parameters": 1000, "cpu_offload": True},
    "fsdp in two copies": {"name": "fsdp", "shard_size": 1},
    "fsdp, compiled and recomputed": {"name": "fsdp", **WITHOUT_COMPILER, "activation_checkpointing": True},
}
ZERO: dict[str, Settings] = {
    **{f"zero {stage}": {"name": "deepspeed", "zero_stage": stage} for stage in (1, 2, 3)},
    "zero 2, compiled": {"name": "deepspeed", "zero_stage": 2, **WITHOUT_COMPILER},
    "zero 3, recomputed": {"name": "deepspeed", "zero_stage": 3, "activation_checkpointing": True},
}
SCALED: dict[str, Settings] = {name: {**TORCH[name], "precision": "fp16"} for name in ("ddp", "fsdp", "fsdp by class")}
SCALED["fsdp in two copies"] = {**TORCH["fsdp in two copies"], "precision": "fp16"}


IN_HALF: dict[str, tuple[str, Settings]] = {
    "ddp": ("bf16", TORCH["ddp"]),
    "ddp, scaled": ("fp16", TORCH["ddp"]),
    "fsdp": ("bf16", TORCH["fsdp by class"]),
    "fsdp, scaled": ("fp16", TORCH["fsdp by class"]),
    "zero 1": ("bf16", ZERO["zero 1"]),
    "zero 3": ("bf16", ZERO["zero 3"]),
}


class Residual(nn.Module):
    """A layer to be treated as one block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(self.norm(x))))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Three blocks between two layers that belong to none."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(16, width)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(3))
        self.last = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)  # type: ignore[no-any-return]


class Sentences(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Points in R^16, eight to a sample, of which the first few have a class; sample i is a function of i."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        points = torch.randn(8, 16, generator=generator)
        classes = points[:, :4].argmax(dim=1)
        classes[1 + index % 7 :] = -100
        return points, classes


class Counting(Dataset[dict[str, torch.Tensor]]):
    """Sequences that count upwards from a random number; the labels of a random part of each count for nothing."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = (torch.arange(16) + index * 7) % 64
        labels = tokens.clone()
        labels[4 + index % 12 :] = -100
        return {"input_ids": tokens, "labels": labels}


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
            seen.append(runtime.group.collect([stayed, optimizer.param_groups[0]["lr"], scale]))
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
        return {"norm": norm.item(), "found": runtime.group.collect(found.tolist()), "after": after.item()}


def recomputed_blocks(settings: Settings) -> int:
    """How often blocks are computed in one forward and backward pass."""
    with Runtime(settings) as runtime:
        model, computed = runtime.prepare(Stack()), []
        for block in model.blocks:
            block.norm.register_forward_hook(lambda *_: computed.append(1))
        runtime.backward(model(torch.ones(2, 16)).sum())
        return len(computed)


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
            "twice": _refusal(lambda: runtime.prepare(prepared)),
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


def users_code(cfg: Any) -> float:
    """Models that were not written for hpc."""
    accumulated = {"accumulation_steps": 2}
    gpt2 = {
        "ddp": {**TORCH["ddp"], **accumulated},
        "fsdp": {**TORCH["fsdp"], **accumulated, "blocks": ["GPT2Block"], "activation_checkpointing": True},
        "fsdp by size": {**TORCH["fsdp"], **accumulated, "min_block_parameters": 1000},
    }
    results = {
        "gpt2": {name: train_gpt2(settings_of(cfg, f"gpt2 {name}", case)) for name, case in gpt2.items()},
        "digits": {name: train_digits(settings_of(cfg, f"digits {name}", TORCH[name])) for name in ("ddp", "fsdp")},
    }
    return write(cfg, results)


def train_gpt2(settings: Settings) -> dict[str, Any]:
    """A tiny GPT-2 of Transformers on its own loss; returns rank 0's losses, and whether weights are tied still."""
    from transformers import GPT2Config, GPT2LMHeadModel  # deferred: takes seconds

    shape = GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    shape.resid_pdrop = shape.embd_pdrop = shape.attn_pdrop = 0.0
    losses = []
    with Runtime(settings) as runtime:
        model = GPT2LMHeadModel(shape)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
        model, optimizer, loader = runtime.prepare(model, optimizer, DataLoader(Counting(), 2, shuffle=True))
        for batch in runtime.steps(loader, total=6, weigh=lambda batch: (batch["labels"][:, 1:] >= 0).sum()):
            with runtime.accumulate():
                loss = model(**batch).loss
                runtime.backward(loss)
                runtime.clip_grad_norm_(1.0)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        module: Any = runtime.unwrap(model)
        return {"losses": losses, "tied": module.lm_head.weight is module.transformer.wte.weight}


def train_digits(settings: Settings) -> dict[str, Any]:
    """The example; returns rank 0's losses, and how many held-out digits are recognised."""
    recipe = {
        "model": {"width": 8, "depth": 1},
        "optimizer": {"lr": 0.01, "weight_decay": 0.05},
        "data": {"batch_size": 16},
        "steps": 80,
    }
    recognised = digits.train(OmegaConf.create({**settings, **recipe}))
    rows = (Path(settings["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    return {"recognised": recognised, "losses": [json.loads(row)["loss"] for row in rows]}


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

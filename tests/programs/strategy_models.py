"""What strategies are compared on: settings, models with several blocks, and data whose samples weigh unequally."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

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

"""Training of models that were not written for hpc, under DDP and FSDP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from hpc import Runtime
from hpc.examples import digits
from tests.programs.strategy_jobs import settings_of, write
from tests.programs.strategy_models import TORCH, Counting, Settings


def train(cfg: Any) -> float:
    """All of them under each."""
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

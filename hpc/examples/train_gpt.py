"""Trains the small GPT: the loop that the README shows."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset

from hpc import Runtime
from hpc.data.loader import PreparedLoader
from hpc.examples.gpt import GPT, GPTConfig, optimizer_groups, warmup_cosine
from hpc.examples.text import ByteBlocks, read_text, text_of

SAMPLE_BYTES = 400


def train(cfg: Any) -> float:
    """Train on cfg.data for cfg.steps optimizer steps.

    Returns:
        The loss on held-out text, in nats per byte.
    """
    with Runtime(cfg) as runtime:
        text = read_text(cfg.data.path)
        blocks = ByteBlocks(text.training, cfg.data.block_size)
        held_out_blocks = some_of(ByteBlocks(text.held_out, cfg.data.block_size), cfg.data.held_out_blocks)
        gpt = GPT(GPTConfig(block_size=cfg.data.block_size, **cfg.model))
        optimizer = torch.optim.AdamW(
            optimizer_groups(gpt, cfg.optimizer.weight_decay),
            lr=cfg.optimizer.lr,
            betas=tuple(cfg.optimizer.betas),
        )
        scheduler = LambdaLR(optimizer, warmup_cosine(cfg.optimizer.warmup_steps, cfg.steps))
        loader = DataLoader(blocks, cfg.data.batch_size, shuffle=True, num_workers=cfg.data.workers)
        held_out = DataLoader(held_out_blocks, cfg.data.batch_size)
        model, optimizer, scheduler, loader, held_out = runtime.prepare(gpt, optimizer, scheduler, loader, held_out)

        for batch in runtime.steps(loader, total=cfg.steps, tokens_per_sample=cfg.data.block_size):
            loss = model(**batch).loss
            runtime.backward(loss)
            runtime.clip_grad_norm_(1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            runtime.log(loss=loss)
            if runtime.sync_gradients and runtime.step % cfg.evaluate_every_steps == 0:
                runtime.log(held_out_loss=evaluate(runtime, model, held_out))

        result = evaluate(runtime, model, held_out)
        runtime.print(f"held-out loss {result:.3f} nats per byte (uniform guessing: 5.545)")
        runtime.print(f"a sample:\n{sample(gpt, runtime.device)}")
    return result


def some_of(blocks: ByteBlocks, most: int) -> Subset[dict[str, torch.Tensor]]:
    """At most `most` blocks, taken evenly from the whole text."""
    stride = max(1, len(blocks) // most)
    return Subset(blocks, range(0, len(blocks), stride)[:most])


@torch.no_grad()
def evaluate(runtime: Runtime, model: torch.nn.Module, held_out: PreparedLoader) -> float:
    """Mean loss per byte over the held-out text, each byte once, on whichever rank it falls."""
    model.eval()
    losses = []
    for batch in held_out:
        logits = model(**batch).logits.float()
        of_bytes = functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
        losses.append(runtime.gather_for_metrics(of_bytes))
    model.train()
    return float(torch.cat(losses).mean())


@torch.no_grad()
def sample(model: GPT, device: torch.device) -> str:
    """Text the model goes on with after a line that begins a function."""
    prompt = torch.tensor([list(b"def ")], device=device)
    generator = torch.Generator(device).manual_seed(0)
    return text_of(model.generate(prompt, SAMPLE_BYTES, temperature=0.8, generator=generator)[0])

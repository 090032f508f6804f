"""A Lightning Trainer that SLURMEnvironment requeues, as its page on managed clusters says.

srun python -m tests.programs.loops_of_others.with_lightning CONDITIONS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from tests.programs.loops_of_others.problem import (
    BATCH,
    RANKS,
    SAVE_EVERY,
    STEPS,
    Conditions,
    Net,
    Points,
    optimizer_of,
)


class Module(lightning.LightningModule):  # type: ignore[misc]  # Lightning need not be installed
    """The problem in Lightning's words."""

    def __init__(self, conditions: Conditions) -> None:
        super().__init__()
        self.net = Net(conditions)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """One micro-batch."""
        return self.net(*batch)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimizer."""
        return optimizer_of(self)


class Tell(lightning.Callback):  # type: ignore[misc]
    """Tells every step."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """After the optimizer's step."""
        self._conditions.tell(trainer.global_rank, trainer.global_step)


def newest(run: Path) -> str | None:
    """The checkpoint that was written last.

    The "last" of `fit` looks only at what ModelCheckpoint wrote, and its None only at what was written at a signal.
    """
    there = [*run.glob("hpc_ckpt_*.ckpt"), *run.glob("checkpoints/*.ckpt")]
    return str(max(there, key=lambda path: path.stat().st_mtime)) if there else None


def main(conditions: Conditions) -> None:
    """Train, from the newest checkpoint where there is one."""
    saved = Path(conditions.run) / "checkpoints"
    saving = ModelCheckpoint(
        dirpath=saved, every_n_train_steps=SAVE_EVERY, save_top_k=-1, save_last=True, filename="{step}"
    )
    trainer = lightning.Trainer(
        default_root_dir=conditions.run, accelerator="cpu", devices=RANKS, num_nodes=1, strategy="ddp",
        max_steps=STEPS, max_epochs=-1, plugins=[SLURMEnvironment(auto_requeue=True)],
        callbacks=[Tell(conditions), saving], logger=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Module(conditions)
    # A loader and a sampler that Lightning can save within an epoch; with torch's own it begins the epoch again.
    sampler = StatefulDistributedSampler(Points(), RANKS, trainer.global_rank, shuffle=True)
    loader = StatefulDataLoader(Points(), batch_size=BATCH, sampler=sampler)
    trainer.fit(module, loader, ckpt_path=newest(Path(conditions.run)))
    if trainer.is_global_zero and trainer.global_step == STEPS:
        conditions.finish(module.net)


if __name__ == "__main__":
    main(Conditions(**json.loads(sys.argv[1])))

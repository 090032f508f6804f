"""A loop in Accelerate that saves and loads its state by hand, as the page on checkpoints says.

srun python -m tests.programs.loops_of_others.with_accelerate CONDITIONS
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration
from torch.utils.data import DataLoader

from tests.programs.loops_of_others.problem import BATCH, SAVE_EVERY, STEPS, Conditions, Net, Points, optimizer_of


class Progress:
    """How far the loop is; saved with the rest."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """What is saved."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What is loaded."""
        self.step = state["step"]


def train(conditions: Conditions) -> None:
    """Train, from the newest checkpoint where there is one. The environment says which rank this is."""
    project = ProjectConfiguration(project_dir=conditions.run, automatic_checkpoint_naming=True)
    data = DataLoaderConfiguration(use_seedable_sampler=True)
    accelerator = Accelerator(cpu=True, project_config=project, dataloader_config=data)
    model, progress = Net(conditions), Progress()
    plain = DataLoader(Points(), batch_size=BATCH, shuffle=True)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer_of(model), plain)
    accelerator.register_for_checkpointing(progress)
    saved = Path(conditions.run) / "checkpoints"
    if there := sorted(saved.glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1])):
        accelerator.load_state(str(there[-1]))
        project.iteration = int(there[-1].name.split("_")[1]) + 1
    while progress.step < STEPS:
        train_epoch(conditions, accelerator, prepared, optimizer, loader, progress)
    if accelerator.is_main_process:
        conditions.finish(model)
    accelerator.end_training()


def train_epoch(
    conditions: Conditions, accelerator: Accelerator, model: Any, optimizer: Any, loader: Any, progress: Progress
) -> None:
    """What is left of an epoch."""
    epoch, done = divmod(progress.step, len(loader))
    loader.set_epoch(epoch)
    for batch in accelerator.skip_first_batches(loader, done) if done else loader:
        accelerator.backward(model(*batch))
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        conditions.tell(accelerator.process_index, progress.step)
        if progress.step % SAVE_EVERY == 0:
            accelerator.save_state()
        if progress.step == STEPS:
            return


def main(conditions: Conditions) -> None:
    """Started by srun alone."""
    names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
    os.environ.update({ours: os.environ[theirs] for ours, theirs in names.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    train(conditions)


if __name__ == "__main__":
    main(Conditions(**json.loads(sys.argv[1])))

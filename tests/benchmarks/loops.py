"""One training step, four ways: by hand, under hpc.Runtime, under Accelerate, under Fabric.

Each is a generator that yields after every step. The hand-written loop logs nothing and saves nothing; a
second one tells what two equal loops differ by. The Runtime's logs its loss at every step, shows it as often as it
does by default, and agrees on stopping; its checkpoints are put off beyond the end. The peers' loops are as their
documentation writes them, and log nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice, repeat
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime
from hpc.data.batches import EndlessBatches

FEATURES, CLASSES = 16, 4
SAMPLES = 51_200  # whole batches in every case: a short last one in each epoch would spare the peers work
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Case:
    """A step to measure.

    Args:
        width: Of the MLP's hidden layers.
        batch_size: Per rank.
        steps: How many every loop takes.
    """

    width: int
    batch_size: int
    steps: int


def by_hand(case: Case, runtime: Runtime) -> Iterator[nn.Module]:
    """What one would write without any of these; the batches are those of the Runtime's loop."""
    model = make_model(case)
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True) if runtime.num_processes > 1 else model
    optimizer, scheduler = make_optimizer(model)
    prepared = runtime.prepare(make_loader(case))
    batches = list(islice(EndlessBatches(prepared.order, prepared.share, 0), case.steps))
    loader = DataLoader(prepared.loader.dataset, batch_sampler=batches)
    for points, classes in loader:
        loss = nn.functional.cross_entropy(parallel(points), classes)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parallel.parameters(), CLIP_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield model


def with_runtime(case: Case, runtime: Runtime) -> Iterator[nn.Module]:
    """Ours."""
    model = make_model(case)
    parallel, optimizer, scheduler, loader = runtime.prepare(model, *make_optimizer(model), make_loader(case))
    total = case.steps + 1  # one more than is taken: the last would be saved
    for points, classes in runtime.steps(loader, total=total):
        with runtime.accumulate():
            loss = nn.functional.cross_entropy(parallel(points), classes)
            runtime.backward(loss)
            runtime.clip_grad_norm_(CLIP_NORM)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        runtime.log(loss=loss)
        yield model


def with_accelerate(case: Case, runtime: Runtime) -> Iterator[nn.Module]:  # noqa: ARG001
    """Hugging Face Accelerate's."""
    model = make_model(case)
    accelerator = import_module("accelerate").Accelerator(cpu=True)
    parallel, optimizer, scheduler, loader = accelerator.prepare(model, *make_optimizer(model), make_loader(case))
    for points, classes in _epochs(loader):
        with accelerator.accumulate(parallel):
            loss = nn.functional.cross_entropy(parallel(points), classes)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(parallel.parameters(), CLIP_NORM)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        yield model


def with_fabric(case: Case, runtime: Runtime) -> Iterator[nn.Module]:
    """Lightning Fabric's."""
    model, ranks = make_model(case), runtime.num_processes
    optimizer, scheduler = make_optimizer(model)
    fabric = import_module("lightning_fabric").Fabric(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto"
    )
    fabric.launch()
    parallel, optimizer = fabric.setup(model, optimizer)
    for points, classes in _epochs(fabric.setup_dataloaders(make_loader(case))):
        loss = nn.functional.cross_entropy(parallel(points), classes)
        fabric.backward(loss)
        fabric.clip_gradients(parallel, optimizer, max_norm=CLIP_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield model


LOOPS = {
    "by hand": by_hand,
    "by hand again": by_hand,
    "Runtime": with_runtime,
    "Accelerate": with_accelerate,
    "Fabric": with_fabric,
}


def make_model(case: Case) -> nn.Module:
    """An MLP, the same one every time."""
    torch.manual_seed(0)
    hidden = nn.Linear(case.width, case.width)
    return nn.Sequential(nn.Linear(FEATURES, case.width), nn.ReLU(), hidden, nn.ReLU(), nn.Linear(case.width, CLASSES))


def make_optimizer(model: nn.Module) -> tuple[Any, Any]:
    """AdamW, and a scheduler that is asked at every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
    return optimizer, StepLR(optimizer, 1000, 0.5)


def make_loader(case: Case) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Random points of which the largest of the first coordinates is the class."""
    points = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(0))
    dataset = TensorDataset(points, points[:, :CLASSES].argmax(dim=1))
    return DataLoader(dataset, batch_size=case.batch_size, shuffle=True)


def _epochs(loader: Any) -> Iterator[Any]:
    for again in repeat(loader):
        yield from again

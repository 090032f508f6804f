"""A small residual network on scikit-learn's handwritten digits: images, without torchvision and without a download.

Norms are over groups of channels, not over the batch (Wu and He, "Group Normalization", ECCV 2018), so that the same
global batch gives the same gradient however many ranks it is divided among.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpc import Runtime
from hpc.errors import ConfigurationError

HELD_OUT = 297
"""This many of the 1797 images, the last ones, are held out; other people wrote them than the rest."""
GROUPS = 4


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity (He et al., CVPR 2016).

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape [batch, channels, height, width] to the same."""
        return torch.relu(x + self.body(x))


class ResNet(nn.Module):
    """A stem, two stages of residual blocks at full and half resolution, and a linear classifier.

    Args:
        width: Channels of the first stage; the second has twice as many.
        depth: Blocks in each stage.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.second = nn.ModuleList(ResidualBlock(2 * width) for _ in range(depth))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Shape [batch, 1, 8, 8] to logits of shape [batch, 10]."""
        x = torch.relu(self.stem(images))
        for block in self.first:
            x = block(x)
        x = torch.relu(self.down(x))
        for block in self.second:
            x = block(x)
        logits: torch.Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def train(cfg: Any) -> float:
    """Train on all but the held-out images for cfg.steps optimizer steps.

    Returns:
        The share of held-out images that are recognised.
    """
    with Runtime(cfg) as runtime:
        training, held_out = read_digits()
        model = ResNet(**cfg.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.optimizer.lr, weight_decay=cfg.optimizer.weight_decay)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, cfg.optimizer.lr, total_steps=cfg.steps + 1)
        loader = DataLoader(training, cfg.data.batch_size, shuffle=True)
        model, optimizer, scheduler, loader = runtime.prepare(model, optimizer, scheduler, loader)

        for images, digits in runtime.steps(loader, total=cfg.steps):
            loss = nn.functional.cross_entropy(model(images), digits)
            runtime.backward(loss)
            runtime.clip_grad_norm_(1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            runtime.log(loss=loss)

        result = accuracy(model, held_out, runtime.device)
        runtime.print(f"{result:.1%} of {HELD_OUT} held-out digits recognised")
    return result


def read_digits() -> tuple[TensorDataset, TensorDataset]:
    """Images of shape [1, 8, 8] with values from 0 to 1, and their digits: to train on, and held out.

    Raises:
        ConfigurationError: scikit-learn is not installed.
    """
    try:
        # deferred: the only thing here that needs it
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "experiment=digits needs scikit-learn, which is not installed: pip install scikit-learn."
        ) from error
    data = load_digits()
    images = torch.from_numpy(np.asarray(data.images, dtype=np.float32) / 16)[:, None]
    digits = torch.from_numpy(np.asarray(data.target, dtype=np.int64))
    return TensorDataset(images[:-HELD_OUT], digits[:-HELD_OUT]), TensorDataset(images[-HELD_OUT:], digits[-HELD_OUT:])


@torch.no_grad()
def accuracy(model: nn.Module, held_out: TensorDataset, device: torch.device) -> float:
    """The share that is recognised. Every rank looks at all images, because a sharded model needs every rank."""
    images, digits = (tensor.to(device) for tensor in held_out.tensors)
    model.eval()
    found = model(images).argmax(dim=1)
    model.train()
    return float((found == digits).float().mean())

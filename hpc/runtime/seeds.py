"""Which random numbers does this rank draw?"""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch alike on every rank, so that all build the same model."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the generator that user code draws from
    torch.manual_seed(seed)


def seed_rank(seed: int, rank: int) -> None:
    """Give this rank a stream of its own. Until training begins all ranks draw alike, to build one model."""
    seed_everything(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))

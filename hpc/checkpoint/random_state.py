"""Where are this rank's random generators, and how do they get there again?"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hpc.checkpoint.unpacking import check_twister, random_up


def random_state() -> dict[str, Any]:
    """This rank's random generators, in types that torch.load takes with weights_only."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # what user code draws from
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put one rank's generators back to where they were.

    Raises:
        Exception: That is no state of them.
    """
    random.setstate(random_up(state["python"]).getstate())
    name, keys, *rest = state["numpy"]
    twister = keys.numpy().astype(np.uint32)
    check_twister(twister, rest[0])
    np.random.set_state((name, twister, *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

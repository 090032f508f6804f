"""Random draws of user code that depend on a position, not on what was drawn before."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_draws(seed: int, position: int) -> int:
    """Seed the generators that user code draws from, for what is at one position; returns what with."""
    (drawn,) = np.random.SeedSequence([seed % 2**64, position]).generate_state(1)
    random.seed(int(drawn))
    np.random.seed(drawn)  # the generator that user code draws from
    torch.default_generator.manual_seed(int(drawn))
    return int(drawn)


@contextlib.contextmanager
def drawing(seed: int, position: int, generator: Any = None) -> Iterator[None]:
    """Seeded draws inside a `with` block; afterwards the generators are as they were before it.

    Args:
        seed: Another seed draws others.
        position: For what is drawn.
        generator: One more of torch's generators that is drawn from, or anything else.
    """
    before, before_numpy = random.getstate(), np.random.get_state()
    others = [generator] if isinstance(generator, torch.Generator) else []
    states = [each.get_state() for each in (torch.default_generator, *others)]
    drawn = seed_draws(seed, position)
    try:
        for each in others:
            each.manual_seed(drawn)
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)
        for each, state in zip((torch.default_generator, *others), states, strict=True):
            each.set_state(state)

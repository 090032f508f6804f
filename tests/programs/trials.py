"""What a sweeper that looks for the best value starts in its tests."""

from __future__ import annotations

from typing import Any


def value(cfg: Any) -> float:
    """A parabola with its least value at x = 2; some trials are pruned, and some fail."""
    if cfg.x == cfg.get("pruned_at"):
        import optuna

        raise optuna.TrialPruned("not worth going on")
    if cfg.x == cfg.get("failed_at"):
        raise ValueError("asked to fail")
    return float((cfg.x - 2) ** 2)

"""How DeepSpeed's engine shares a step (ZeRO 1 to 3)."""

from __future__ import annotations

from hpc.runtime.strategy.single import Single


class DeepSpeed(Single):
    """For now nothing."""

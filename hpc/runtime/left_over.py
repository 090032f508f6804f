"""Has a step left gradients that no optimizer has used? No checkpoint holds them: a resumed run is without them."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from hpc.say import warn


def tell_of_gradients(step: int, optimizers: Sequence[Optimizer]) -> bool:
    """Say so after a step in which no optimizer has stepped; returns whether there was something to say.

    Args:
        step: Which one.
        optimizers: That train the run's parameters.
    """
    parameters = (each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"])
    is_left = any(each.grad is not None and bool(each.grad.any()) for each in parameters)
    if is_left:
        warn(
            f"step {step} has left gradients that no optimizer has used, which no checkpoint holds, so that a run that "
            "is resumed here goes on without them: to accumulate, set strategy.accumulation_steps and step in each "
            "micro-batch; to leave the step out, call optimizer.zero_grad()."
        )
    return is_left

"""What does a submission cost at worst, and does somebody want that?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpc.config import Launch
from hpc.errors import ConfigurationError
from hpc.say import say
from hpc.submit.plan import Plan

YES = ("y", "yes")


def gpu_hours(plans: Sequence[Plan]) -> float:
    """When every point runs until its time limit, and once."""
    return sum(_hours(plan) * plan.hardware.gpus_per_node for plan in plans)


def _amount(hours: float, unit: str) -> str:
    number = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    return f"{number} {unit}-hour{'s' * (number != '1')}"


def agree_to_cost(plans: Sequence[Plan], launch: Launch) -> None:
    """Say what will be sent, and ask where it may cost more than `launch.ask_above_gpu_hours`.

    Raises:
        ConfigurationError: Nobody has said yes to it.
    """
    hours, jobs = gpu_hours(plans), sum(plan.jobs for plan in plans)
    worst = _amount(hours, "GPU") if hours else _amount(sum(map(_hours, plans)), "node")
    calls = f" in {len(plans)} arrays" if len(plans) > 1 else ""
    say(f"At worst {worst}: {jobs} job{'s' * (jobs != 1)}{calls}, each until its time limit.")
    if hours <= launch.ask_above_gpu_hours or launch.yes:
        return
    asked = sys.stdin.isatty() and sys.stdout.isatty()
    if not asked or input(f"This is more than {launch.ask_above_gpu_hours:,.0f}. Submit? [y/N] ").lower() not in YES:
        raise ConfigurationError(
            f"launch.ask_above_gpu_hours must be at least {hours:,.0f} for this sweep, but is "
            f"{launch.ask_above_gpu_hours:,.0f}, and nobody said yes: check the number of points and their time "
            "limits, or add launch.yes=true."
        )


def _hours(plan: Plan) -> float:
    """Of nodes."""
    return plan.jobs * plan.hardware.nodes * plan.hardware.time_limit_minutes / 60

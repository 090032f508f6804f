"""How often is it worth saving? What a save costs is weighed against what a failure loses."""

from __future__ import annotations

import math
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600.0
MIN_SECONDS = 60.0
MAX_SECONDS = 4 * SECONDS_PER_HOUR
DURABLE_MARGIN = 2.0


def daly_seconds(save_seconds: float, seconds_between_failures: float) -> float:
    """The time between saves that loses least (J. T. Daly, 2006, eq. 37; its first term is Young's, 1974).

    Args:
        save_seconds: How long a save keeps training.
        seconds_between_failures: On average.
    """
    if save_seconds >= 2 * seconds_between_failures:
        return seconds_between_failures
    root = math.sqrt(save_seconds / (2 * seconds_between_failures))
    young = math.sqrt(2 * save_seconds * seconds_between_failures)
    return young * (1 + root / 3 + root * root / 9) - save_seconds


@dataclass(frozen=True)
class Choice:
    """An interval, and why.

    Args:
        seconds: Between the ends of two saves.
        reason: A clause for the log.
    """

    seconds: float
    reason: str


def choose(blocked_seconds: float, durable_seconds: float, hours_between_failures: float, source: str) -> Choice:
    """The best interval between a minute and four hours that leaves each save time to finish.

    Args:
        blocked_seconds: How long a save keeps training.
        durable_seconds: How long until it is committed.
        hours_between_failures: On average.
        source: Where that number comes from.
    """
    best = daly_seconds(blocked_seconds, hours_between_failures * SECONDS_PER_HOUR)
    seconds = min(MAX_SECONDS, max(MIN_SECONDS, DURABLE_MARGIN * durable_seconds, best))
    limit = "" if seconds == best else f", kept between {MIN_SECONDS:.0f} s, or twice a save, and {MAX_SECONDS:.0f} s"
    return Choice(
        seconds,
        f"a save keeps training for {blocked_seconds:.2g} s and takes {durable_seconds:.2g} s, and a failure is "
        f"expected every {hours_between_failures:.3g} h ({source}): Daly's optimum is {best:.0f} s{limit}",
    )

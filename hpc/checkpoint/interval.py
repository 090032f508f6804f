"""How often is it worth saving? What a save costs is weighed against what a failure loses."""

from __future__ import annotations

import math
from dataclasses import dataclass

SECONDS_PER_HOUR = 3600.0
HOURS_PER_DAY = 24.0
MIN_SECONDS = 60.0
MAX_SECONDS = 4 * SECONDS_PER_HOUR
DURABLE_MARGIN = 2.0


def daly_seconds(save_seconds: float, seconds_between_failures: float) -> float:
    """The time between saves that loses least (J. T. Daly, 2006, eq. 37; its first term is Young's, 1974).

    Args:
        save_seconds: How long a save blocks training.
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
        blocked_seconds: How long a save blocks training.
        durable_seconds: How long until it is committed.
        hours_between_failures: On average.
        source: Where that number comes from, as the end of the sentence.
    """
    best = daly_seconds(blocked_seconds, hours_between_failures * SECONDS_PER_HOUR)
    seconds = min(MAX_SECONDS, max(MIN_SECONDS, DURABLE_MARGIN * durable_seconds, best))
    if seconds == DURABLE_MARGIN * durable_seconds:
        return Choice(seconds, "twice as long as a save takes to be written")
    return Choice(
        seconds,
        f"a save blocks training for {_duration(blocked_seconds)}; "
        f"about one failure {_rate(hours_between_failures)} is expected{source}",
    )


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{max(1.0, seconds * 1000):.0f} ms"
    return f"{seconds:.1f} s"


def _rate(hours: float) -> str:
    return "a day" if hours == HOURS_PER_DAY else f"every {hours:.1f} hours"

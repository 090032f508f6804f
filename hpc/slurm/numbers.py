"""Numbers of tasks, ranks and exit codes as Slurm shortens them: 0-2,5 is 0, 1, 2 and 5."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 100_000
"""No range in a damaged text makes a longer list than this."""


def expanded(text: str) -> list[int]:
    """The numbers in a text; what is no number or range, and a range of more than MOST, is passed over."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last.isdigit() or not last) and int(last or first) - int(first) < MOST:
            found += range(int(first), int(last or first) + 1)
    return found


def shortened(numbers: Iterable[int]) -> list[str]:
    """The other way round, by size: `0-2` and `5`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(low) if low == high else f"{low}-{high}" for low, high in runs]

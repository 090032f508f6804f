"""How far is the run? Shown as a bar on a terminal, and as plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

from hpc.say import say

LINE_SECONDS = 10.0
"""Time between two progress lines where there is no terminal."""


class Progress:
    """A bar on a terminal, plain lines in a log.

    Args:
        total: Steps in all.
        step: Steps done in earlier lives.
    """

    def __init__(self, total: int, step: int) -> None:
        self.total = total
        self.started, self.first_step = time.monotonic(), step
        self._last_line = self.started
        self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True) if sys.stderr.isatty() else None

    def show(self, step: int, values: Mapping[str, float], speed: str) -> None:
        """Say where the run is.

        Args:
            step: Steps done.
            values: What was logged last.
            speed: As text, with its unit.
        """
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix({**shown, "speed": speed}, refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() - self._last_line >= LINE_SECONDS or step == self.total:
            self._last_line = time.monotonic()
            words = "  ".join(f"{name} {value}" for name, value in shown.items())
            say(f"step {step}/{self.total}  {words}  {speed}  {self._left(step)} left")

    def close(self) -> None:
        """Leave the bar on the screen as it is, and go to the next line."""
        if self._bar is not None:
            self._bar.close()

    def _left(self, step: int) -> str:
        per_step = (time.monotonic() - self.started) / max(1, step - self.first_step)
        return str(tqdm.format_interval((self.total - step) * per_step))

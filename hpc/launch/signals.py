"""Has a person, or the system, told this process to stop? Heard between two looks at what runs."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill` and a shutdown, and the end of the terminal."""


class StopSignals:
    """Takes these signals over for a while, but for those that this process was started to ignore, as nohup does."""

    def __init__(self) -> None:
        self._received: set[int] = set()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def taken(self) -> set[int]:
        """What came since the last call; what came twice meanwhile is one stop, because some senders repeat it."""
        received, self._received = self._received, set()
        return received

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received.add(number)

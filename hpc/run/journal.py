"""What happened to a point, over all its lives: one JSON object per line, only ever appended."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

JOURNAL_FILE = "journal.jsonl"


class Journal:
    """The events of one point.

    Args:
        directory: The point's directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL_FILE

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; one write call, so that two processes never interleave within a line."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **fields}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def events(self) -> list[dict[str, Any]]:
        """Every whole event; a line cut short by a crash or a full disk is passed over."""
        if not self.path.exists():
            return []
        return [event for line in self.path.read_text(errors="replace").splitlines() if (event := _parsed(line))]

    def last_committed_step(self) -> int | None:
        """The newest step the journal says is on disk."""
        steps = [event["step"] for event in self.events() if event["event"] == "committed"]
        return max(steps, default=None)

    def lives_without_progress(self) -> int:
        """How many lives have started since the last commit."""
        lives = 0
        for event in self.events():
            lives = {"started": lives + 1, "committed": 0}.get(event["event"], lives)
        return lives


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and "event" in event else None

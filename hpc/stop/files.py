"""Requests of a person who cannot send a signal: RUN_DIR/stop saves and ends the run, RUN_DIR/save saves.

Rank 0 looks once a second, takes the file away, and asks as a signal would. Only a regular file that belongs to whom
the run belongs to counts: a link, or somebody else's file, asks for nothing.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from hpc.run.directory import RunDirectory
from hpc.say import say, warn
from hpc.stop.requests import StopCause, StopRequests


class RequestFiles:
    """The two files of one run.

    Args:
        directory: The run directory.
        requests: Told what they ask for.
    """

    def __init__(self, directory: Path, requests: StopRequests) -> None:
        place = RunDirectory(directory)
        self.stop, self.save, self.requests = place.stop, place.save, requests
        self._refused: set[Path] = set()

    def look(self) -> None:
        """Ask for what they ask for."""
        if self._take(self.stop):
            self.requests.ask(StopCause.STOP_FILE)
            say(f"Stopping after this step, with a save: {self.stop} was there.")
        if self.requests.on_save is not None and self._take(self.save):
            self.requests.on_save()
            say(f"Saving after this step: {self.save} was there.")

    def _take(self, path: Path) -> bool:
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                path.unlink()
                return True
            if path not in self._refused:
                self._refused.add(path)
                warn(f"{path} asks for nothing, because it must be a regular file of uid {os.geteuid()}.")
        return False

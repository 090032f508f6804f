"""What a point prints, shown while it is written."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from hpc.files import open_to_read


class Relay:
    """Rank 0's log on its way to the screen.

    Args:
        log: A file that grows, or is not there yet.
        prefix: Before every line, where several points speak at once; "" shows the text as it comes.
    """

    def __init__(self, log: Path, prefix: str) -> None:
        self.log, self.prefix = log, prefix
        self._shown = 0
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._line = ""

    def show(self, is_last: bool = False) -> None:
        """Show what is new; with a prefix, a line whose end is not written yet waits for it, but not the last time."""
        try:
            with open_to_read(self.log) as file:
                file.seek(self._shown)
                data = file.read()
        except OSError:  # not there yet
            return
        self._shown += len(data)
        text = self._line + self._decode(data, final=is_last)
        if self.prefix:
            cut = len(text) if is_last else text.rfind("\n") + 1
            text, self._line = text[:cut], text[cut:]
            text = "".join(f"{self.prefix}{line}\n" for line in text.splitlines())
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

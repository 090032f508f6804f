"""What a person at a terminal sees of a program."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path

from tests.conftest import clean_environment

COLUMNS = 120


def on_a_terminal(directory: Path, *command: str) -> str:
    """Everything that a program wrote to a terminal of 120 columns, with its control characters."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    with subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=theirs, stderr=theirs, stdin=theirs):
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the terminal's other end is closed: the program has ended (Linux answers EIO)
            pass
    os.close(ours)
    return seen.decode(errors="replace")


def rendered(written: str) -> list[str]:
    """The lines that stay on the screen. Knows the two control characters that one progress bar needs: CR and LF."""
    lines, column = [""], 0
    for character in written:
        if character == "\n":
            lines.append("")
            column = 0  # a terminal turns LF into CR and LF
        elif character == "\r":
            column = 0
        else:
            lines[-1] = f"{lines[-1][:column]:<{column}}{character}{lines[-1][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]

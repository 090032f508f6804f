"""What does this attempt run with, and is that what the attempt before ran with?"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hpc.attempt.attempt import Attempt
from hpc.errors import LoadError
from hpc.run.code import Code, entered, submitted
from hpc.run.events import Software
from hpc.run.journal import read_journal
from hpc.run.lives import last_software
from hpc.run.versions import installed_versions
from hpc.say import warn

COMPARED = "torch"
"""A model trains otherwise, or not at all, with another version of it or of Python."""


def note_software(attempt: Attempt) -> None:
    """Tell the journal, and warn where Python or torch is another one than before.

    Raises:
        SaveError: The journal cannot be written.
        LoadError: It cannot be read.
    """
    code = _submission(attempt.directory)
    before, told = last_software(read_journal(attempt.directory)), "the life before"
    if before is None and code is not None:
        before, told = _as_submitted(code), "the submission"
    now = _software(code)
    attempt.journal.write(now)
    if before is not None and _words(before) != _words(now):
        warn(f"This life has {_words(now)}, and {told} had {_words(before)}: results may differ from here on.")


def _software(code: Code | None) -> Software:
    installed = installed_versions()
    known: Mapping[str, str] = {} if code is None else code.record.get("versions", {})
    names = sorted({*installed, *known})
    told = {name: installed.get(name, "") for name in names if installed.get(name) != known.get(name)}
    if COMPARED in installed:
        told[COMPARED] = installed[COMPARED]
    tree = "" if code is None or entered() is None else code.tree
    return Software(tree, platform.python_version(), sys.executable, told)


def _submission(directory: Path) -> Code | None:
    """The record of the submission that this process belongs to, as far as it can be known."""
    archive = entered()
    with suppress(LoadError):
        codes = submitted(archive[0].parent if archive else directory.parent)
        return next((code for code in reversed(codes) if archive is None or code.digest == archive[1]), None)
    return None


def _as_submitted(code: Code) -> Software:
    record = code.record
    return Software(code.tree, record.get("python", ""), record.get("interpreter", ""), record.get("versions", {}))


def _words(software: Software) -> str:
    torch = software.versions.get(COMPARED, "")
    return f"Python {software.python} ({software.interpreter}){f' and torch {torch}' if torch else ''}"

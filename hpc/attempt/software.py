"""What does this attempt run with, and is that what the attempt before ran with?"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpc.errors import LoadError
from hpc.run.code import Code, entered, submitted
from hpc.run.events import Started
from hpc.run.journal import read_journal
from hpc.run.lives import last_start
from hpc.run.versions import installed_versions

COMPARED = "torch"
"""A model trains otherwise, or not at all, with another version of it or of Python."""


def with_software(started: Started, directory: Path) -> tuple[Started, str]:
    """The same event with the versions of this attempt.

    Args:
        started: How this attempt begins; not in the journal yet.
        directory: The run directory.

    Returns:
        The event, and a sentence where Python or torch is another one than before, or "".

    Raises:
        LoadError: The journal cannot be read.
    """
    code = _submission(directory)
    before, told = last_start(read_journal(directory)), "the life before"
    if before is None and code is not None:
        record = code.record
        told_then = {name: record.get(name, "") for name in ("python", "interpreter")}
        before, told = replace(started, **told_then, versions=dict(record.get("versions", {}))), "the submission"
    now = _now(started, code)
    if before is None or _words(before) == _words(now):
        return now, ""
    return now, f"This life has {_words(now)}, and {told} had {_words(before)}: results may differ from here on."


def _now(started: Started, code: Code | None) -> Started:
    installed = installed_versions()
    known: Mapping[str, str] = {} if code is None else code.record.get("versions", {})
    names = sorted({*installed, *known})
    told = {name: installed.get(name, "") for name in names if installed.get(name) != known.get(name)}
    if COMPARED in installed:
        told[COMPARED] = installed[COMPARED]
    tree = "" if code is None or entered() is None else code.tree
    return replace(started, tree=tree, python=platform.python_version(), interpreter=sys.executable, versions=told)


def _submission(directory: Path) -> Code | None:
    """The record of the submission that this process belongs to, as far as it can be known."""
    archive = entered()
    with suppress(LoadError):
        codes = submitted(archive[0].parent if archive else directory.parent)
        return next((code for code in reversed(codes) if archive is None or code.digest == archive[1]), None)
    return None


def _words(software: Started) -> str:
    torch = software.versions.get(COMPARED, "")
    return f"Python {software.python} ({software.interpreter}){f' and torch {torch}' if torch else ''}"

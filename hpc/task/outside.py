"""Was something imported from where the code was submitted, past the copy of it?"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hpc.run.code import entered
from hpc.run.enter import MANIFEST
from hpc.run.versions import INSTALLED
from hpc.say import warn

SHOWN = 3


def warn_of_code_outside() -> None:
    """Name modules that a change of files can still change. Nothing where the process runs from no copy."""
    archive = entered()
    if archive is None:
        return
    found = sorted(set(_outside(_roots(archive[0]))))
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        warn(
            f"{', '.join(found[:SHOWN])}{more} must lie in the code that was submitted to stay what it was, but git "
            "ignores it or a link leads to it: take it out of .gitignore, or install it."
        )


def _roots(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return [str(root["live"]) for root in json.loads(opened.read(MANIFEST))["roots"]]


def _outside(roots: list[str]) -> Iterator[str]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not any(f"/{part}/" in file for part in INSTALLED):
            real = os.path.realpath(file)
            if any(real.startswith(f"{root}/") for root in roots):
                yield real

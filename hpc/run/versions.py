"""Which distributions are installed, in which versions? Their metadata is not read: that would take longer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""In the path of every directory that pip and Debian install into."""


def installed_versions() -> dict[str, str]:
    """By the normalized names of all distributions on sys.path; of two with one name, the one that is imported."""
    found: dict[str, str] = {}
    for entry in reversed([Path(each) for each in sys.path if Path(each).is_dir()]):
        for name in os.listdir(entry):  # noqa: PTH208 (names are all that is wanted)
            stem, dot, ending = name.rpartition(".")
            if dot and ending in ("dist-info", "egg-info") and "-" in stem:
                distribution, _, version = stem.rpartition("-") if ending == "dist-info" else _of_egg(stem)
                found[distribution.replace("_", "-").lower()] = version
    return dict(sorted(found.items()))


def _of_egg(stem: str) -> tuple[str, str, str]:
    """`PyYAML-6.0-py3.11`, or without the end."""
    name, _, version = stem.partition("-")
    return name, "", version.partition("-")[0]

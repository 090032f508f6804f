"""Where is what a point had, when it is begun anew? Beside the points, in earlier/: nothing is deleted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

from hpc.files import make_directory
from hpc.run.directory import not_writable

EARLIER = "earlier"


def set_aside(sweep: Path, points: Iterable[str]) -> None:
    """Move the directories of points to earlier/NAME-1 and so on. A point that has none is passed over.

    Raises:
        ConfigurationError: The file system says no.
    """
    for name in points:
        places = (sweep / EARLIER / f"{name}-{number}" for number in itertools.count(1))
        try:
            if (sweep / name).is_dir():
                make_directory(sweep / EARLIER)
                (sweep / name).rename(next(place for place in places if not os.path.lexists(place)))
        except OSError as error:
            raise not_writable(sweep / EARLIER, error) from error

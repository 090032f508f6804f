"""What does a file hold that has one JSON object in each line?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc.files import read_regular


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects, in order; none where there is no file. A line that is no object, as one cut short, is passed over.

    Raises:
        OSError: The file is there and cannot be read, or it is a link, a pipe or a device.
    """
    try:
        lines = read_regular(path).decode(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    for text in lines:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield line

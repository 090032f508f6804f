"""How does a table look on a terminal?"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence

GAP = "  "
NARROWEST_CELL = 8


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell; the last one is left ragged."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)][:-1]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)


def fitted(columns: Mapping[str, Sequence[str]], droppable: Sequence[str], width: int) -> list[tuple[str, ...]]:
    """Rows of a table, its header first, that are at most so wide where that can be.

    A column without a text in it is left out. Then columns are dropped in the order of `droppable`, and at last the
    widest cells are cut short.

    Args:
        columns: By header, in order.
        droppable: Headers, what is needed least first.
        width: Of the terminal.
    """
    shown = {header: [header, *cells] for header, cells in columns.items() if any(cells)}
    for header in droppable:
        if _width(shown) <= width:
            break
        shown.pop(header, None)
    while _width(shown) > width:
        widest = max(shown, key=lambda header: max(map(len, shown[header])))
        longest = max(map(len, shown[widest]))
        if longest <= NARROWEST_CELL:
            break
        limit = max(NARROWEST_CELL, longest - (_width(shown) - width))
        shown[widest] = [cut(cell, limit) for cell in shown[widest]]
    return [tuple(row) for row in zip(*shown.values(), strict=True)]


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def wrapped(head: str, text: str, width: int) -> str:
    """A paragraph with its name before it; its further lines begin where its first does."""
    return textwrap.fill(
        f"{head}{GAP}{text}",
        width=max(40, width),
        subsequent_indent=" " * (len(head) + len(GAP)),
        break_on_hyphens=False,
    )


def terminal_width() -> int:
    """Of standard output's terminal; $COLUMNS wins, and a pipe has 160."""
    return shutil.get_terminal_size((160, 24)).columns


def duration(seconds: float | None) -> str:
    """`35 s`, `14 min`, `3.5 h`, `4 d`; "" for None."""
    if seconds is None:
        return ""
    for unit, length, digits in (("d", 86400.0, 1), ("h", 3600.0, 1), ("min", 60.0, 0)):
        if seconds >= 2 * length or (unit == "min" and seconds >= 100):
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(len, cells)) for cells in columns.values()) + len(GAP) * (len(columns) - 1)

"""How is a small file replaced? By a whole one, so that whoever reads it sees the old text or the new."""

from __future__ import annotations

from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """All of it or nothing. It may be lost in a power cut: what must not be is `hpc.checkpoint.files`' to write."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)

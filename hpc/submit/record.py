"""What is written down about the code of a submission: where it comes from, how it differs, and what is installed?

No environment variables, and no addresses of repositories: passwords are in both.
"""

from __future__ import annotations

import platform
import sys
import time
from typing import Any

from hpc.run.versions import installed_versions
from hpc.submit.project import other_directories
from hpc.submit.tree import Tree, commit_of, difference

LONGEST_DIFFERENCE = 100_000
"""Characters; the whole of it is in the archive anyway."""


def record(trees: list[Tree]) -> dict[str, Any]:
    """For one submission.

    Args:
        trees: The projects that were kept.
    """
    return {
        "time": round(time.time(), 3),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "projects": [_project(tree) for tree in trees],
        "elsewhere": [
            {"root": str(path), "commit": commit_of(path)} for path in other_directories([tree.root for tree in trees])
        ],
        "versions": installed_versions(),
    }


def _project(tree: Tree) -> dict[str, Any]:
    text = difference(tree) if tree.commit and tree.changed else ""
    if len(text) > LONGEST_DIFFERENCE:
        text = f"{text[:LONGEST_DIFFERENCE]}\n… {len(text) - LONGEST_DIFFERENCE} more characters\n"
    return {"root": str(tree.root), "commit": tree.commit, "changed": list(tree.changed), "diff": text}

"""`hpc init WHAT`: files to begin with. One file per WHAT, imported when it is typed."""

from __future__ import annotations

from hpc.cli.lazy import LazyGroup

WHATS = {
    "project": "hpc.cli.init_project:project_command",
    "site": "hpc.cli.init_site:site_command",
}

init_command = LazyGroup(
    WHATS,
    name="init",
    help="Write files to begin with; nothing that is there is ever replaced.",
    short_help="Write files to begin with.",
)

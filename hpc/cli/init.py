"""`hpc init WHAT`: files to begin with. One file per WHAT, imported when it is typed."""

from __future__ import annotations

from hpc.cli.lazy import LazyGroup, Verb

WHATS = {
    "project": Verb("hpc.cli.init_project:project_command", "A small project that trains as it is."),
    "site": Verb("hpc.cli.init_site:site_command", "The preset of this cluster."),
}

init_command = LazyGroup(
    WHATS,
    name="init",
    help="Write files to begin with; nothing that is there is ever replaced.",
)

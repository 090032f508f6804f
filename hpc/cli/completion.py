"""`hpc completion`: what makes a shell complete verbs, options, sweeps and overrides?"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_HPC_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print what to put into the start-up file of SHELL: `eval "$(hpc completion bash)"` in ~/.bashrc, for one."""
    from hpc.cli import main  # deferred: it is what imports this

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(main, {}, "hpc", VARIABLE).source())

"""`hpc VERB`: one file per verb."""

from __future__ import annotations

import sys

import click

from hpc.cli.checkpoint import checkpoint_command
from hpc.cli.world import world_command

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """One PyTorch training loop, from a laptop to a Slurm cluster and back from preemption."""


@main.command("run", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(arguments: tuple[str, ...]) -> None:
    """Train here, or with -m submit: the same as `python run.py`."""
    from hpc.cli import run  # deferred: Hydra takes longer to import than the other verbs to run

    _import_from_here()
    run.main(list(arguments))


@main.command("script", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def script_command(arguments: tuple[str, ...]) -> None:
    """Print what `-m` with the same arguments would send, byte for byte, and send nothing."""
    from hpc.cli import run  # deferred, as above

    _import_from_here()
    asked = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    run.main(["-m", *asked, "launch.dry_run=true"])


def _import_from_here() -> None:
    """The user's own modules lie here. Verbs that do not run them import nothing from where they happen to be typed."""
    sys.path.insert(0, "")


main.add_command(world_command)
main.add_command(checkpoint_command)

"""`hpc run` and `hpc script`: the same command lines as `python run.py`, which Hydra reads."""

from __future__ import annotations

import sys

import click

from hpc.cli import run
from hpc.say import answering

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("run", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(arguments: tuple[str, ...]) -> None:
    """Train here, or with -m submit: the same as `python run.py`."""
    _import_from_here()
    run.main(list(arguments))


@click.command("script", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def script_command(arguments: tuple[str, ...]) -> None:
    """Print what `-m` with the same arguments would send, byte for byte, and send nothing."""
    _import_from_here()
    if {"-h", "--help"} & {*arguments}:
        click.echo("`hpc script` takes the words of `hpc run -m`, prints what those would send, and sends nothing.\n")
    asked = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    with answering():
        run.main(["-m", *asked, "launch.dry_run=true"])


def _import_from_here() -> None:
    """The user's own modules lie here. Verbs that do not run them import nothing from where they happen to be typed."""
    sys.path.insert(0, "")

"""`hpc resume`: submit what stopped, was lost or cancelled, or was never submitted."""

from __future__ import annotations

import click

from hpc.cli.again import look_in_turn, submit_again
from hpc.cli.sweeps import answering, json_option, names, words_argument
from hpc.status.standing import CANCELLED, LOST, STOPPED, UNSUBMITTED

CONTINUED = (STOPPED, LOST, CANCELLED, UNSUBMITTED)


@click.command("resume")
@words_argument
@json_option
@answering
def resume_command(words: tuple[str, ...], as_json: bool) -> None:
    """Continue what has stopped, was lost or cancelled, and submit what never was. A failed point needs `hpc retry`."""
    turn, status, points = look_in_turn(words, as_json)
    wanted = [point for point in points if point.state in CONTINUED]
    if not wanted and not as_json:
        click.echo(f"Nothing of {names(points)} waits to be continued in {status.directory}.")
    submit_again(turn, status, wanted, (), as_json)

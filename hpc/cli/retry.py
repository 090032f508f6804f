"""`hpc retry`: submit failed points again, perhaps with more of what they lacked."""

from __future__ import annotations

import click

from hpc.attempt.cause import KINDS
from hpc.cli.again import look_in_turn, submit_again
from hpc.cli.sweeps import answering, json_option, names, words_argument
from hpc.errors import ConfigurationError
from hpc.status.standing import FAILED, LOST


@click.command("retry")
@words_argument
@json_option
@click.option("--cause", help=f"Only points that failed so, several with commas: {', '.join(KINDS)}.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="As hardware.memory_gb=64.")
@click.option("--new-code", is_flag=True, help="Run the code as it is now; else that which was submitted.")
@answering
def retry_command(
    words: tuple[str, ...], as_json: bool, cause: str | None, changes: tuple[str, ...], new_code: bool
) -> None:
    """Submit failed and lost points again; each goes on from its newest checkpoint."""
    kinds = _kinds(cause)
    turn, status, points = look_in_turn(words, as_json)
    failed = [point for point in points if point.state in (FAILED, LOST)]
    wanted = [point for point in failed if not kinds or (point.standing.cause and point.standing.cause.kind in kinds)]
    if not wanted and not as_json:
        of = f" because of {cause}" if cause else ""
        click.echo(f"Nothing of {names(points)} has failed{of} in {status.directory}.")
    submit_again(turn, status, wanted, changes, as_json, new_code=new_code)


def _kinds(text: str | None) -> tuple[str, ...]:
    kinds = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigurationError(f"--cause must be of {', '.join(KINDS)}, but is {', '.join(unknown)}.")
    return kinds

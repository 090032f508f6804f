"""`hpc doctor`: which promises hold here?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path

import click

from hpc.cli.columns import terminal_width, wrapped
from hpc.cli.sweeps import answering, json_option
from hpc.doctor.finding import LEVELS, NOTE, OK, PROBLEM, Finding, exit_code
from hpc.doctor.look import Answer, look
from hpc.environ import process_environ
from hpc.errors import ConfigurationError
from hpc.slurm.client import has_slurm

SHOWN = {OK: "ok", NOTE: "note", PROBLEM: "PROBLEM"}
COLORS = {OK: "green", NOTE: "yellow", PROBLEM: "red"}
WIDEST = 120


@click.command("doctor")
@json_option
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where runs lie.")
@click.option("--canary", is_flag=True, help="Submit a short job that tries the nodes, too, and wait for it.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[hardware=... cluster=...]")
@answering
def doctor_command(as_json: bool, directory: Path, canary: bool, arguments: tuple[str, ...]) -> None:
    """Which promises hold on this cluster and this machine, and what to do about the others.

    Asks the controller three questions, and tries the file system. Exits with 1 where there is a problem.

    With --canary, a job of the hardware and cluster that are typed says what its ranks see, is told to stop, saves,
    is requeued and goes on. It uses its nodes for about 20 s; a requeue takes about two minutes on most clusters.
    """
    if arguments and not canary:
        raise click.UsageError(f"{arguments[0]} is for the job of --canary: add that.")
    answer = look(directory.absolute(), process_environ())
    if canary:
        found = tuple(_canary(directory.absolute(), arguments))
        answer = replace(answer, findings=(*answer.findings, *found))
    click.echo(json.dumps(as_object(answer)) if as_json else "\n".join(_lines(answer)))
    raise SystemExit(exit_code(answer.findings))


def _canary(directory: Path, arguments: Sequence[str]) -> Iterator[Finding]:
    """Submitted as a person does it, so that what is proved is what will be used."""
    from hpc.cli import run  # deferred: Hydra is imported for nothing else
    from hpc.doctor.canary import SETTINGS, follow  # deferred, as above

    if not has_slurm():
        raise ConfigurationError("sbatch must be on PATH for --canary, but is not: run this on a login node.")
    run_dir = directory / "runs" / f"doctor-{time.strftime('%Y-%m-%d-%H-%M-%S')}"
    with redirect_stdout(sys.stderr):  # standard output is for the findings
        run.main(["-m", *SETTINGS, *arguments, f"run_dir={run_dir}"])
    yield from follow(run_dir, process_environ())


def as_object(answer: Answer) -> dict[str, object]:
    """What --json prints: docs/doctor.md."""
    findings = [asdict(finding) for finding in answer.findings]
    return {"format": 1, "cluster": answer.cluster, "release": answer.release, "findings": findings}


def _lines(answer: Answer) -> Iterator[str]:
    width = min(WIDEST, terminal_width())
    yield f"Cluster {answer.cluster}, Slurm {answer.release}" if answer.cluster else "No Slurm answers here"
    for title in dict.fromkeys(finding.about for finding in answer.findings):
        yield f"\n{title}"
        yield from _group([finding for finding in answer.findings if finding.about == title], width)
    counts = {level: sum(finding.level == level for finding in answer.findings) for level in LEVELS}
    yield f"\n{counts[PROBLEM]} problem(s), {counts[NOTE]} note(s), {counts[OK]} in order"


def _group(findings: Sequence[Finding], width: int) -> Iterator[str]:
    names = max(len(finding.check) for finding in findings)
    for finding in findings:
        head = f"{SHOWN[finding.level]:<7}  {finding.check:<{names}}"
        text = wrapped(head, finding.text, width)
        yield click.style(text[:7], fg=COLORS[finding.level]) + text[7:]
        if finding.advice:
            yield wrapped(f"{'':<9}{'':<{names}}", f"→ {finding.advice}", width)

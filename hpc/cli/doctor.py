"""`hpc doctor`: which promises hold here?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hpc.cli.columns import terminal_width, wrapped
from hpc.cli.sweeps import answering, json_option
from hpc.doctor.finding import LEVELS, NOTE, OK, PROBLEM, Finding, exit_code
from hpc.doctor.look import Answer, look

SHOWN = {OK: "ok", NOTE: "note", PROBLEM: "PROBLEM"}
COLORS = {OK: "green", NOTE: "yellow", PROBLEM: "red"}
WIDEST = 120


@click.command("doctor")
@json_option
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where runs lie.")
@answering
def doctor_command(as_json: bool, directory: Path) -> None:
    """Which promises hold on this cluster and this machine, and what to do about the others.

    Asks the controller three questions, and tries the file system. Exits with 1 where there is a problem.
    """
    answer = look(directory.absolute(), os.environ)
    click.echo(json.dumps(as_object(answer)) if as_json else "\n".join(_lines(answer)))
    raise SystemExit(exit_code(answer.findings))


def as_object(answer: Answer) -> dict[str, object]:
    """What --json prints: docs/doctor.md."""
    findings = [asdict(finding) for finding in answer.findings]
    return {"format": 1, "cluster": answer.cluster, "release": answer.release, "findings": findings}


def _lines(answer: Answer) -> Iterator[str]:
    width = min(WIDEST, terminal_width())
    yield f"Cluster {answer.cluster}, Slurm {answer.release}" if answer.cluster else "No Slurm answers here"
    for title in dict.fromkeys(finding.partition for finding in answer.findings):
        yield f"\npartition {title}" if title else ""
        yield from _group([finding for finding in answer.findings if finding.partition == title], width)
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

"""`hpc status`: where does every point of a sweep stand, and why?"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from hpc.cli.columns import cut, duration, fitted, terminal_width, wrapped
from hpc.cli.sweeps import answering, json_option, look_at, words_argument
from hpc.slurm.reasons import explained
from hpc.slurm.why import AGAIN, ALREADY
from hpc.status.ending import report
from hpc.status.overrides import short_names
from hpc.status.rows import as_json, is_done, row
from hpc.status.standing import DAMAGED, FAILED, FINISHED, LOST, PENDING, RUNNING, SAVING, STOPPED, UNSUBMITTED
from hpc.status.sweep import PointStatus, SweepStatus

MOST_ROWS = 50
"""A sweep with more points shows those of them that somebody should look at; --all shows all."""
MOST_NOTES = 6
INTERESTING = (FAILED, LOST, DAMAGED, RUNNING, SAVING, STOPPED, PENDING, UNSUBMITTED, FINISHED)
"""Which of them come first, where not all are shown."""
COLOURS = {
    FINISHED: "green",
    RUNNING: "cyan",
    SAVING: "cyan",
    FAILED: "red",
    LOST: "red",
    DAMAGED: "red",
    STOPPED: "yellow",
}
NUMBERS = ("step", "loss", "speed", "left", "try")
"""Columns whose cells end below each other."""
LEAST_NEEDED = ("node", "speed", "try", "left", "loss")
CLEAR, CLEAR_BELOW, LINE_END = "\x1b[H", "\x1b[J", "\x1b[K\n"
"""Terminal codes (ECMA-48): to the top, wipe what is below, wipe the rest of the line."""


@click.command("status")
@words_argument
@json_option
@click.option("--all", "show_all", is_flag=True, help="Every point, however many there are.")
@click.option("--watch", is_flag=True, help="Look again and again until nothing more will happen.")
@click.option("--interval", default=5.0, show_default=True, help="Seconds between two looks.")
@answering
def status_command(words: tuple[str, ...], as_json: bool, show_all: bool, watch: bool, interval: float) -> None:
    """Where does every point stand: state, step, loss, speed, and why it waits or failed?

    SWEEP is a directory, or the end of one that `hpc ls` shows; the newest sweep when not given. POINTS are indices,
    overrides such as lr=3e-4, or jobs such as 1234_7.
    """
    if as_json:
        _print_json(words)
    elif watch:
        _watch(words, show_all, interval)
    else:
        click.echo(screen(*look_at(words), show_all, terminal_width()))


def screen(status: SweepStatus, points: Sequence[PointStatus], show_all: bool, width: int) -> str:
    """What is shown of a sweep.

    Args:
        status: The sweep.
        points: Those of its points that were asked for.
        show_all: Whether every one of them has a row.
        width: Of the terminal.
    """
    shown = list(points) if show_all or len(points) <= MOST_ROWS else _most_interesting(points)
    hidden = len(points) - len(shown)
    rows = [row(point) for point in shown]
    blocks = [_head(status, points), _table(status, rows, width)]
    blocks += [f"{hidden:,} more points: --all shows them."] if hidden else []
    told = _report(points[0]) if len(points) == 1 else ""
    notes = [told] if told else [*_notes(points, width), *_again(rows, width), *_slow(rows, width)]
    blocks += ["\n".join(notes)] if notes else []
    return "\n\n".join(blocks)


def _print_json(words: Sequence[str]) -> None:
    status, points = look_at(words)
    click.echo(json.dumps(as_json(SweepStatus(status.directory, points, status.problem))))


def _watch(words: Sequence[str], show_all: bool, interval: float) -> None:
    """Draw over the last screen without wiping it, so that nothing flickers."""
    is_terminal = sys.stdout.isatty()
    while True:
        status, points = look_at(words)
        text = screen(status, points, show_all, terminal_width())
        if is_terminal:
            lines = text.splitlines()[: shutil.get_terminal_size().lines - 1]
            text = CLEAR + "".join(line + LINE_END for line in lines) + CLEAR_BELOW
        click.echo(text, nl=not is_terminal)
        if all(is_done(point.state) for point in points):
            return
        time.sleep(max(0.5, interval))


def _most_interesting(points: Sequence[PointStatus]) -> list[PointStatus]:
    """The first ones of each state, in the sweep's order."""
    alike: dict[str, list[PointStatus]] = {}
    for point in points:
        alike.setdefault(point.state, []).append(point)
    found: list[PointStatus] = []
    for state in INTERESTING:
        found += alike.get(state, [])[: max(0, min(MOST_ROWS // 5, MOST_ROWS - len(found)))]
    return sorted(found, key=lambda point: point.index)


def _head(status: SweepStatus, points: Sequence[PointStatus]) -> str:
    counts = SweepStatus(status.directory, points).counts
    words = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    lines = [str(status.directory), f"{len(points):,} point{'s' * (len(points) != 1)}: {words}"]
    if status.problem:
        lines.append(f"Slurm does not answer, so this is what the files tell: {cut(status.problem, 120)}")
    return "\n".join(lines)


def _table(status: SweepStatus, rows: Sequence[dict[str, Any]], width: int) -> str:
    keys = short_names(status.differing)
    units = {each["unit"] for each in rows if each["per_second"] is not None}
    unit = next(iter(units)) if len(units) == 1 else ""
    columns = {
        "point": [each["point"] for each in rows],
        **{f"{short}": [each["overrides"].get(key, "") for each in rows] for key, short in keys.items()},
        "state": [each["state"] for each in rows],
        "step": [_step(each) for each in rows],
        "loss": [_number(each["loss"]) for each in rows],
        "speed": [_speed(each, unit) for each in rows],
        "left": [duration(each["seconds_left"]) for each in rows],
        "try": [str(each["attempt"] or "") for each in rows],
        "node": [_nodes(each["nodes"]) for each in rows],
        "why": [_why(each) for each in rows],
    }
    header, *body = fitted(columns, LEAST_NEEDED, width)
    return "\n".join(_painted(header, body))


def _painted(header: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    place = header.index("state") if "state" in header else -1
    for number, cells in enumerate([header, *body]):
        padded = [
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        ]
        if number == 0:
            yield click.style("  ".join(padded).rstrip(), bold=True)
            continue
        padded[-1] = padded[-1].rstrip()
        if cells[place] in COLOURS:
            padded[place] = click.style(padded[place], fg=COLOURS[cells[place]])
        yield "  ".join(padded).rstrip()


def _again(rows: Sequence[dict[str, Any]], width: int) -> Iterator[str]:
    """Why points wait that have lived before, each verdict once."""
    told: dict[tuple[str, str], list[str]] = {}
    for each in rows:
        if end := _end_before(each):
            told.setdefault((end["verdict"], end["text"]), []).append(each["point"])
    for (verdict, text), names in told.items():
        yield wrapped(verdict, f"The life before this one {text}; it begins again by itself ({_points(names)}).", width)


def _end_before(each: dict[str, Any]) -> dict[str, Any] | None:
    """How the life before ended, where the point waits for the one that follows by itself."""
    end: dict[str, Any] | None = each["last_end"]
    return end if end is not None and each["state"] == PENDING and end["follows"] in (AGAIN, ALREADY) else None


def _slow(rows: Sequence[dict[str, Any]], width: int) -> Iterator[str]:
    """The ranks for which others wait."""
    for each in rows:
        if told := each["slow_rank"]:
            yield wrapped("slow_rank", f"{told['text']} (point {each['point']})", width)


def _notes(points: Sequence[PointStatus], width: int) -> Iterator[str]:
    """What stands in the last column, each once, in words."""
    told: dict[tuple[str, str], list[str]] = {}
    for point in points:
        if point.state == PENDING and point.queued is not None and point.queued.reason:
            reason = point.queued.reason
            told.setdefault((reason, explained(reason)), []).append(point.name)
        elif point.standing.cause is not None:
            cause = point.standing.cause
            rank = "" if cause.rank is None else f"rank {cause.rank}: "
            told.setdefault((cause.kind, rank + cause.text), []).append(point.name)
    noted = [(cut(code, 24), words, names) for (code, words), names in list(told.items())[:MOST_NOTES] if words]
    head = max((len(code) for code, _, _ in noted), default=0)
    for code, words, names in noted:
        yield wrapped(code.ljust(head), f"{cut(words, 240)} ({_points(names)})", width)
    if len(told) > MOST_NOTES:
        yield f"{len(told) - MOST_NOTES} more causes: `hpc status --json` has all."


def _report(point: PointStatus) -> str:
    """All that is known of why a single point failed."""
    past = point.standing.past or ()
    if point.state not in (FAILED, LOST) or not past:
        return ""
    return report(point.directory, past[-1], point.job, point.queued).rstrip()


def _points(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"point {names[0]}"
    return f"points {', '.join(names)}" if len(names) <= 4 else f"{len(names):,} points"


def _step(each: dict[str, Any]) -> str:
    if each["step"] is None:
        return ""
    return f"{each['step']}/{each['total_steps']}" if each["total_steps"] else str(each["step"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _speed(each: dict[str, Any], unit: str) -> str:
    if each["per_second"] is None or each["state"] not in (RUNNING, SAVING):
        return ""
    return f"{each['per_second']:,.0f} {unit or each['unit']}/s"


def _nodes(nodes: Sequence[str]) -> str:
    return "" if not nodes else nodes[0] if len(nodes) == 1 else f"{nodes[0]} +{len(nodes) - 1}"


def _why(each: dict[str, Any]) -> str:
    if each["cause"] is not None:
        return str(each["cause"]["kind"])
    if each["slow_rank"] is not None:
        return "slow_rank"
    end = _end_before(each)
    verdict = "" if end is None else str(end["verdict"])
    return cut(", ".join(filter(None, [verdict, each["reason"]])), 40)

"""The one report of an attempt that failed: what is known, which rank was the cause, and a text that says so.

    failures/<attempt>.json    the evidence and the cause, for programs
    failures/<attempt>.txt     the same for a person: a batch script without Python can show it

Every rank that fails writes both anew from what all of them have said, and so does whoever watches over the ranks; the
last one to write has read everything. `hpc status` decides once more, because it knows what Slurm says as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hpc.attempt.cause import Cause
from hpc.attempt.evidence import Evidence, Position
from hpc.attempt.first_cause import first_cause
from hpc.attempt.statement import MOST_CHARACTERS, TOLD, read_statements, statement_files, statement_of
from hpc.errors import HpcError
from hpc.files import read_regular, read_tail, replace_text
from hpc.run.pulse import Pulse, read_pulses
from hpc.slurm.numbers import shortened
from hpc.slurm.step_end import Exit, StepEnd
from hpc.stop.activity import IN_A_STEP

FORMAT = 1
MOST_ROUNDS = 32
"""A rank that fails reads again what others have said meanwhile; there are fewer files than this."""
SHOWN_ECHOES = 3
MOST_PULSES = 256
"""Of a larger world, where ranks were is read once: every rank that fails would read thousands of files."""
MOST_LINES, TAIL_BYTES = 12, 4096
"""Of the log of a rank that could say nothing."""


def positions_of(record: Path) -> dict[int, Position]:
    """Where every rank of an attempt was, while its pulses are not those of a later attempt."""
    return {rank: _position(pulse) for rank, pulse in read_pulses(record.parent.parent, record.stem).items()}


def evidence(record: Path, end: StepEnd | None = None, world_size: int = 0) -> Evidence:
    """What is known of the end of an attempt: by its report, by what ranks have said since, and by the caller.

    Args:
        record: The report; it may be missing.
        end: What was seen of the end of its ranks, besides what the report has.
        world_size: Number of ranks.
    """
    kept = _kept(record)
    said = (*kept.statements, *read_statements(statement_files(record)))
    told = {each.rank: each for each in sorted(said, key=lambda each: each.monotonic, reverse=True)}  # its first word
    return Evidence(
        tuple(told[rank] for rank in sorted(told)),
        kept.end if end is None else _joined(end, kept.end),
        {**kept.positions, **({} if len(kept.positions) > MOST_PULSES else positions_of(record))},
        kept.world_size or world_size,
        kept.last_lines,
    )


def write_report(record: Path, seen: Evidence) -> Cause | None:
    """Write what is known of the end of an attempt, as a report and as a text; returns its cause.

    Args:
        record: The report.
        seen: What is known, and not only by the report.

    Raises:
        OSError: The file system says no.
    """
    cause = first_cause(seen)
    if cause is not None:
        replace_text(record, json.dumps(as_json(seen, cause)) + "\n")
        replace_text(record.with_suffix(".txt"), shown(cause, seen))
    return cause


def report_failure(record: Path, world_size: int) -> Cause | None:
    """Write the report from what all ranks have said so far, until nobody has said more meanwhile.

    Raises:
        OSError: The file system says no.
    """
    cause: Cause | None = None
    there: list[Path] = []
    for _ in range(MOST_ROUNDS):
        now = statement_files(record)
        if now == there:
            break
        there = now
        cause = write_report(record, evidence(record, world_size=world_size))
    return cause


def gather(failures: Path, but: Path) -> None:
    """Put what ranks of earlier attempts have said into their reports, and remove those files: sites count them.

    Args:
        failures: Where they lie.
        but: The report of an attempt that is under way.

    Raises:
        OSError: The file system says no.
    """
    if not failures.is_dir():
        return
    attempts = {match[1] for path in failures.iterdir() if (match := TOLD.fullmatch(path.name))}
    for record in [failures / f"{attempt}.json" for attempt in sorted(attempts)]:
        if record != but:
            settle(record)


def settle(
    record: Path, end: StepEnd | None = None, world_size: int = 0, log_of: Callable[[int], Path] | None = None
) -> Cause | None:
    """Make the report final: no rank of the attempt is left that could say more.

    Args:
        record: The report; it may be missing.
        end: What was seen of the end of its ranks.
        world_size: Their number.
        log_of: Where what a rank wrote is kept.

    Raises:
        OSError: The file system says no.
    """
    files = statement_files(record)
    seen = evidence(record, end, world_size)
    cause = write_report(record, seen if log_of is None else with_last_lines(seen, log_of))
    for path in files:
        path.unlink(missing_ok=True)
    return cause


def with_last_lines(seen: Evidence, log_of: Callable[[int], Path]) -> Evidence:
    """The same with the end of the log of a rank that could not say what it failed of."""
    cause = first_cause(seen)
    if cause is None or cause.rank is None or cause.told_by == "rank":
        return seen
    with suppress(OSError):
        text = read_tail(log_of(cause.rank), TAIL_BYTES).decode(errors="replace")
        return replace(seen, last_lines=tuple(line[:MOST_CHARACTERS] for line in text.splitlines()[-MOST_LINES:]))
    return seen


def as_json(seen: Evidence, cause: Cause | None) -> dict[str, Any]:
    """The report as it is kept."""
    return {
        "format": FORMAT,
        "cause": None if cause is None else asdict(cause),
        "world_size": seen.world_size,
        "statements": [{**asdict(each), "sort": each.sort} for each in seen.statements],
        "exits": [asdict(each) for each in seen.end.exits],
        "states": list(seen.end.states),
        "failed_nodes": list(seen.end.failed_nodes),
        "positions": {str(rank): asdict(each) for rank, each in seen.positions.items()},
        "last_lines": list(seen.last_lines),
    }


def evidence_of(found: Mapping[str, Any]) -> Evidence:
    """What a report keeps.

    Raises:
        LookupError, TypeError, ValueError: It is none.
    """
    return Evidence(
        tuple(map(statement_of, found["statements"])),
        StepEnd(tuple(Exit(**each) for each in found["exits"]), tuple(found["states"]), tuple(found["failed_nodes"])),
        {int(rank): Position(**each) for rank, each in found["positions"].items()},
        int(found["world_size"]),
        tuple(map(str, found["last_lines"])),
    )


def shown(cause: Cause, seen: Evidence) -> str:
    """The report as a person reads it, with its line end."""
    return "\n".join([*_first(cause, seen), *_where(cause), *_others(cause, seen), *_positions(cause, seen)]) + "\n"


def _first(cause: Cause, seen: Evidence) -> list[str]:
    on = f" on {cause.host}" if cause.host else ""
    if cause.rank is None:
        return [f"hpc: no rank has told why the attempt failed{on}: {cause.text}"]
    of = f" of {seen.world_size}" if seen.world_size else ""
    told = next((each for each in seen.statements if each.rank == cause.rank and not each.is_echo), None)
    lines = list(told.lines) if told is not None and cause.told_by == "rank" else [cause.text, *_wrote_last(seen)]
    return [f"hpc: rank {cause.rank}{of}{on} failed first:", *lines]


def _wrote_last(seen: Evidence) -> list[str]:
    return ["hpc: it wrote last:", *seen.last_lines] if seen.last_lines else []


def _where(cause: Cause) -> list[str]:
    alike = [f"hpc: ranks {listed(cause.ranks)} failed alike."] if len(cause.ranks) > 1 else []
    doing = f", {cause.phase}" if cause.phase else ""
    return alike if cause.step is None else [*alike, f"hpc: it was in step {cause.step}{doing}."]


def _others(cause: Cause, seen: Evidence) -> list[str]:
    """One line for each thing that was said because of the cause."""
    echoes: dict[str, list[int]] = {}
    for each in seen.statements:
        if each.rank != cause.rank and each.rank not in cause.ranks:
            echoes.setdefault(each.reason, []).append(each.rank)
    lines = [f"hpc: rank {listed(ranks)} failed after that: {reason}" for reason, ranks in echoes.items()]
    return lines[:SHOWN_ECHOES]


def _positions(cause: Cause, seen: Evidence) -> list[str]:
    places: dict[str, list[int]] = {}
    for rank, at in sorted(seen.positions.items()):
        step = "before the first step" if at.step is None else f"in step {at.step}"
        places.setdefault(f"{step}{', ' if at.phase else ''}{at.phase}", []).append(rank)
    if len(places) < 2 and cause.kind != "hang":
        return []
    return ["hpc: last heard of: " + "; ".join(f"rank {listed(ranks)} {where}" for where, ranks in places.items())]


def listed(ranks: Iterable[int]) -> str:
    """0-2, 5 for ranks 0, 1, 2 and 5."""
    return ", ".join(shortened(ranks))


def _kept(record: Path) -> Evidence:
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, HpcError):
        return evidence_of(json.loads(read_regular(record)))
    return Evidence()


def _position(pulse: Pulse) -> Position:
    """A pulse counts the steps that were taken."""
    step = pulse.step + 1 if pulse.phase in IN_A_STEP else pulse.step or None
    return Position(step, pulse.phase, pulse.host, pulse.time)


def _joined(newer: StepEnd, older: StepEnd) -> StepEnd:
    known = {each.rank for each in newer.exits}
    return StepEnd(
        (*newer.exits, *(each for each in older.exits if each.rank not in known)),
        tuple(dict.fromkeys([*newer.states, *older.states])),
        tuple(dict.fromkeys([*newer.failed_nodes, *older.failed_nodes])),
    )

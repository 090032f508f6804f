"""Which rank failed first, and why: our report beside torchrun's error file, on the same injected faults.

    python -m tests.benchmarks.first_cause            the score of the recorded runs, with noise
    python -m tests.benchmarks.first_cause record     run every fault anew, in both ways, and record it; needs root

Four ranks on two nodes are processes of this machine, the nodes UTS namespaces. They are watched over as srun with
--kill-on-bad-exit does it, and what it would have said of their ends is kept in its own words. torchrun runs the same
faults in a plain loop, all four ranks under one agent, which spares it the doubt between nodes.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc.attempt.cause import Cause, signal_name
from hpc.attempt.evidence import Evidence
from hpc.attempt.first_cause import first_cause
from hpc.attempt.report import evidence_of
from hpc.attempt.statement import Statement
from hpc.slurm.step_end import StepEnd, step_end
from tests.benchmarks.injected_faults import CASES, CORPUS, RANKS, Case, name_of, node_of, record

SEEDS = 40
"""How often each recorded run is looked at, each time with other noise."""
MISSING, HARDER = 0.1, 0.25
"""Of the echoes of ranks that were ended before the last word was said, how many are missing."""


@dataclass(frozen=True)
class Recorded:
    """What was seen of one fault.

    Args:
        case: The fault.
        seen: Everything but the ends of ranks, which are in `end`.
        end: As the queue of a machine sees them.
        torchrun: Rank and message of torchrun's root cause; None where it has named none.
    """

    case: Case
    seen: Evidence
    end: StepEnd
    torchrun: tuple[int, str] | None


def srun_words(end: StepEnd) -> list[str]:
    """The same ends as srun and slurmstepd tell them."""
    lines, is_ended = [f"srun: error: Node failure on {node}" for node in end.failed_nodes], False
    for each in end.exits:
        if each.is_ended and not is_ended:
            is_ended = True
            lines.append("slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-29T00:12:30 ***")
        name = signal_name(each.code)
        words = signal.strsignal(signal.Signals[name]) if name else f"Exited with exit code {each.code}"
        if each.code:
            lines.append(f"srun: error: {each.host}: task {each.rank}: {words}")
    oom = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."
    return [*lines, *([oom] if "OUT_OF_MEMORY" in end.states else [])]


def noisy(recorded: Recorded, seed: int, missing: float = MISSING) -> Evidence:
    """What might have been seen of the same fault.

    Clocks of nodes differ by up to a second, echoes come in another order and may be said before their cause by the
    clock, some of those are missing whose ranks were ended meanwhile, the scheduler's words are cut, and some pulses
    are lost. Half of the time the ends of ranks are known from the words of srun alone.

    Args:
        recorded: What was seen.
        seed: Of the noise.
        missing: How large a share of the echoes of ranks that were ended is lost.
    """
    draw = random.Random(f"{recorded.case.fault} {recorded.case.ranks} {seed}")
    skews = {node_of(rank): draw.uniform(-1, 1) for rank in range(RANKS)}
    told = [
        replace(each, time=each.time + skews.get(each.host, 0.0), lines=each.lines[-3:])
        for each in recorded.seen.statements
    ]
    told = [_late(each, draw) if each.is_echo else each for each in told]
    ended = {each.rank for each in recorded.end.exits if each.is_ended}
    told = [each for each in told if not (each.is_echo and each.rank in ended and draw.random() < missing)]
    draw.shuffle(told)
    positions = {rank: at for rank, at in recorded.seen.positions.items() if draw.random() > 0.1}
    lines = srun_words(recorded.end)
    cut = draw.randrange(max(1, len(lines) // 3 + 1))
    words = step_end("\n".join(lines[cut:] if draw.random() < 0.5 else lines[: len(lines) - cut]))
    end = words if draw.random() < 0.5 else recorded.end
    return replace(recorded.seen, statements=tuple(told), end=end, positions=positions)


def _late(told: Statement, draw: random.Random) -> Statement:
    later = draw.uniform(-0.5, 2.0)
    return replace(told, time=told.time + later, monotonic=told.monotonic + later)


def is_right(case: Case, cause: Cause | None) -> bool:
    """Whether rank, node and kind are those of the fault."""
    if cause is None or cause.rank not in case.ranks:
        return False
    return cause.kind in case.kinds and cause.host == node_of(cause.rank)


def torchrun_is_right(recorded: Recorded) -> tuple[bool, bool]:
    """Whether torchrun names the rank, and whether it says what it failed of besides."""
    if recorded.torchrun is None:
        return False, False
    rank, message = recorded.torchrun
    is_rank = rank in recorded.case.ranks
    return is_rank, is_rank and recorded.case.words in message


def read_corpus(path: Path = CORPUS) -> list[Recorded]:
    """The recorded runs."""
    return [
        Recorded(
            Case(**{**line["case"], "ranks": tuple(line["case"]["ranks"]), "kinds": tuple(line["case"]["kinds"])}),
            replace(evidence_of(line["seen"]), end=StepEnd()),
            evidence_of(line["seen"]).end,
            tuple(line["torchrun"]) if line["torchrun"] else None,
        )
        for line in map(json.loads, path.read_text().splitlines())
    ]


def score(corpus: Sequence[Recorded], missing: float = MISSING) -> dict[str, float]:
    """By fault: the share of looks, each with other noise, in which rank, node and kind are right."""
    looks = {name_of(each.case): [noisy(each, seed, missing) for seed in range(SEEDS)] for each in corpus}
    return {
        name_of(each.case): sum(is_right(each.case, first_cause(seen)) for seen in looks[name_of(each.case)]) / SEEDS
        for each in corpus
    }


def table(corpus: Sequence[Recorded]) -> Iterator[str]:
    """What is printed, and kept in docs/first-cause.md."""
    shares = score(corpus)
    yield "| fault | ours | torchrun: rank | torchrun: rank and cause |"
    yield "|---|---:|---|---|"
    for each in corpus:
        name, _, where = name_of(each.case).partition(", ")
        answers = " | ".join(map(_yes, torchrun_is_right(each)))
        yield f"| `{name}`, {where} | {shares[name_of(each.case)]:.0%} | {answers} |"
    calm = [is_right(each.case, first_cause(replace(each.seen, end=each.end))) for each in corpus]
    ranks, causes = zip(*map(torchrun_is_right, corpus), strict=True)
    harder = score(corpus, HARDER)
    yield f"| **all {len(corpus)}, with noise** | **{_share([*shares.values()])}** | | |"
    yield f"| **all {len(corpus)}, with {HARDER:.0%} of echoes missing** | **{_share([*harder.values()])}** | | |"
    yield f"| **all {len(corpus)}, as recorded** | **{_share(calm)}** | **{_share(ranks)}** | **{_share(causes)}** |"


def _share(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main(arguments: Sequence[str]) -> int:
    """Record, or print the score."""
    if arguments[:1] == ["record"]:
        record(CORPUS, CASES)
    for line in table(read_corpus()):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

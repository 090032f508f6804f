"""Which rank failed first, and why? Decided from what ranks said, and from what others saw of their ends.

A rank that failed by itself comes before one that only lost another; of those that say nothing, whoever watched over
them tells who was killed; and where nobody saw anything, the one rank that all others miss is the cause. Clocks of
different nodes are believed to SKEW_SECONDS only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hpc.attempt.cause import CRASH, HANG, KILLED, NODE_FAIL, OF_STATE, OOM, Cause, cause_told, signal_name
from hpc.attempt.evidence import Evidence, Position
from hpc.attempt.statement import Statement
from hpc.attempt.words import ECHO, LATE, OWN, WORKER, waited_for
from hpc.errors import HpcError
from hpc.slurm.step_end import Exit
from hpc.world.hostlist import expand_hostlist

SKEW_SECONDS = 2.0
"""Of the clocks of two nodes without a common time server that works."""
HARD = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")
"""Signals that no rank gets because another one has failed."""
ALL_SAY = re.compile(r"\bon rank (\d+)\b")
"""Where ranks agree on a failure, as on a loss that is not finite, all of them say whose it is."""
SOFT = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals that launchers send to what is left."""


def first_cause(seen: Evidence) -> Cause | None:
    """What an attempt failed of; None where nothing says that it has failed."""
    decisions: Sequence[Callable[[Evidence], Cause | None]] = (
        *(_failed_node, _own, _signalled, _worker, _ended_by_slurm, _chose_to_leave),
        *(_late, _left, _missed, _state, _echo),
    )
    found = next((cause for decide in decisions if (cause := decide(seen)) is not None), None)
    return None if found is None else _completed(found, seen)


def _completed(cause: Cause, seen: Evidence) -> Cause:
    if cause.rank is None:
        return cause
    at = seen.positions.get(cause.rank, Position())
    return replace(
        cause,
        host=cause.host or seen.host_of(cause.rank),
        step=at.step if cause.step is None else cause.step,
        phase=cause.phase or at.phase,
    )


def _failed_node(seen: Evidence) -> Cause | None:
    if "NODE_FAIL" not in seen.end.states:
        return None
    hosts = [host for text in seen.end.failed_nodes for host in _expanded(text)]
    ranks = tuple(rank for rank in range(seen.world_size) if hosts and seen.host_of(rank) == hosts[0])
    text = f"node {hosts[0]} failed" if hosts else OF_STATE["NODE_FAIL"][1]
    first = ranks[0] if ranks else None
    return Cause(NODE_FAIL, text, first, host=hosts[0] if hosts else "", ranks=ranks, told_by="slurm")


def _own(seen: Evidence) -> Cause | None:
    """A rank that failed by itself, unless one that can say nothing had been killed before."""
    own = seen.told(OWN)
    if not own:
        return None
    first = _earliest(own, seen.end.exits)
    order = [each.rank for each in seen.end.exits]
    killed = _hard(seen)
    if killed is not None and first.rank in order and order.index(killed.rank) < order.index(first.rank):
        return None
    alike = {each.rank: each for each in own if _shape(each.reason) == _shape(first.reason)}
    named = ALL_SAY.search(first.reason)
    told = alike.get(int(named[1]), first) if named else first
    return cause_told(told, sorted(alike) if len(alike) > 1 else ())


def _earliest(told: Sequence[Statement], exits: Sequence[Exit]) -> Statement:
    """By the clock within a node; between nodes, where the clocks cannot tell, by the order in which ranks ended."""
    hosts = {each.host for each in told}
    firsts = [min((each for each in told if each.host == host), key=lambda each: each.monotonic) for host in hosts]
    start = min(each.time for each in firsts)
    rivals = [each for each in firsts if each.time - start <= SKEW_SECONDS]
    order = {each.rank: number for number, each in reversed([*enumerate(exits)])}
    late = len(order)
    steps = {each.rank: -1 if each.step is None else each.step for each in rivals}
    return min(rivals, key=lambda each: (steps[each.rank], order.get(each.rank, late), each.time, each.rank))


def _shape(text: str) -> str:
    """What two ranks that failed alike both say: their numbers may differ."""
    return re.sub(r"0x[0-9a-f]+|\d+", "#", text)


def _hard(seen: Evidence) -> Exit | None:
    return next((each for each in seen.deaths if signal_name(each.code) in HARD), None)


def _signalled(seen: Evidence) -> Cause | None:
    """A hard signal first, then an abort; what launchers send counts where no rank has said anything."""
    by_signal = [each for each in seen.deaths if signal_name(each.code)]
    abrupt = [each for each in by_signal if signal_name(each.code) not in SOFT]
    others = abrupt if abrupt or seen.statements else by_signal
    first = _hard(seen) or next(iter(others), None)
    return None if first is None else _death(first, seen)


def _death(first: Exit, seen: Evidence) -> Cause:
    name = signal_name(first.code)
    ranks = tuple(sorted(each.rank for each in seen.deaths if each.code == first.code))
    alike = ranks if len(ranks) > 1 else ()
    if name == "SIGKILL" and "OUT_OF_MEMORY" in seen.end.states:
        text = "the kernel killed it because its job used more memory than it may (cgroup)"
        cause = Cause(OOM, text, memory="cgroup", told_by="slurm")
    else:
        cause = Cause(KILLED, f"it was killed by {name}, and had no time to say a word", told_by="exit")
    return replace(cause, rank=first.rank, code=first.code, host=first.host, ranks=alike, signal=name)


def _worker(seen: Evidence) -> Cause | None:
    """A worker of a rank was killed: by the kernel, where memory was short."""
    told = seen.told(WORKER)
    if not told:
        return None
    cause = cause_told(_earliest(told, seen.end.exits))
    is_oom = "OUT_OF_MEMORY" in seen.end.states
    return replace(cause, kind=OOM if is_oom else KILLED, memory="cgroup" if is_oom else "")


def _ended_by_slurm(seen: Evidence) -> Cause | None:
    """What Slurm ends has echoes of its own."""
    state = next((each for each in seen.end.states if each in ("PREEMPTED", "TIMEOUT")), None)
    return None if state is None else Cause(*OF_STATE[state], told_by="slurm")


def _chose_to_leave(seen: Evidence) -> Cause | None:
    """A code that no uncaught exception has."""
    return _left(replace(seen, end=replace(seen.end, exits=tuple(each for each in seen.end.exits if each.code != 1))))


def _left(seen: Evidence) -> Cause | None:
    """A rank that ended by itself without a word."""
    codes = sorted((each for each in seen.deaths if not signal_name(each.code)), key=lambda each: not each.code)
    first = codes[0] if codes else None
    if first is None or (first.code == 0 and not seen.statements):
        return None
    text = f"it left with exit code {first.code} and without a word"
    if first.code == 0:
        text = "it left early with exit code 0, while the other ranks went on"
    return Cause(CRASH, text, first.rank, first.code, first.host, told_by="exit")


def _late(seen: Evidence) -> Cause | None:
    """Ranks have waited too long for one that is still there."""
    echoes = seen.told(LATE, ECHO)
    if not seen.told(LATE) or (_earliest(echoes, seen.end.exits).sort != LATE and not _has_all_waited(seen)):
        return None
    named = [rank for told in echoes for rank in waited_for(told.reason)]
    rank = _behind(named or seen.stuck, seen) if named or seen.stuck else _elsewhere(seen)
    words = seen.told(LATE)[0].reason
    if rank is None:
        return Cause(HANG, f"all ranks waited for each other: {words}", told_by="echo")
    return Cause(HANG, f"it did not come where the other ranks waited for it: {words}", rank, told_by="echo")


def _has_all_waited(seen: Evidence) -> bool:
    """Clocks of several nodes cannot always tell whether a time-out came first; that every node has one can."""
    return {each.host for each in seen.told(LATE)} == {each.host for each in seen.told(LATE, ECHO)}


def _behind(ranks: Sequence[int], seen: Evidence) -> int | None:
    """Of several ranks, the one that is somewhere else than all of the others; None where that is none."""
    if len(set(ranks)) == 1:
        return ranks[0]
    places: dict[tuple[int, str], list[int]] = {}
    for rank in sorted(set(ranks)):
        at = seen.positions.get(rank, Position())
        places.setdefault((-1 if at.step is None else at.step, at.phase), []).append(rank)
    if len(places) < 2:
        return None
    fewest = min(places.items(), key=lambda item: (len(item[1]), item[0]))
    return fewest[1][0]


def _elsewhere(seen: Evidence) -> int | None:
    """Where all ranks waited: the one whose exception comes from another line of code than all others' do."""
    frames: dict[str, list[int]] = {}
    for each in seen.statements:
        lines = [line.strip() for line in each.lines if line.strip().startswith('File "')]
        frames.setdefault(lines[-1] if lines else "", []).append(each.rank)
    alone = [ranks[0] for ranks in frames.values() if len(ranks) == 1]
    return alone[0] if len(alone) == 1 and len(frames) == 2 else _behind(sorted(seen.speakers), seen)


def _missed(seen: Evidence) -> Cause | None:
    """Nobody saw it end, and the others have lost it."""
    if not seen.told(ECHO):
        return None
    ended = {each.rank for each in seen.end.exits}
    unseen = [rank for rank in seen.silent if rank not in ended]
    rank = _behind(unseen or seen.silent, seen) if seen.silent else None
    if rank is None:
        return None
    if "OUT_OF_MEMORY" in seen.end.states:
        return Cause(OOM, OF_STATE["OUT_OF_MEMORY"][1], rank, memory="cgroup", told_by="slurm")
    text = f"it was gone without a word, and the others lost it: {seen.told(ECHO)[0].reason}"
    return Cause(KILLED, text, rank, told_by="echo")


def _state(seen: Evidence) -> Cause | None:
    """What Slurm alone says."""
    state = next((each for each in seen.end.states if each in OF_STATE), None)
    if state is None:
        return None
    kind, text = OF_STATE[state]
    return Cause(kind, text, memory="cgroup" if kind == OOM else "", told_by="slurm")


def _echo(seen: Evidence) -> Cause | None:
    """Some rank lost another one, and nobody knows which."""
    echoes = seen.told(ECHO, LATE)
    if not echoes:
        return None
    first = _earliest(echoes, seen.end.exits)
    text = f"a rank was gone without a word; rank {first.rank} lost it: {first.reason}"
    return Cause(KILLED, text, code=first.code, told_by="echo")


def _expanded(text: str) -> Iterable[str]:
    try:
        return expand_hostlist(text)
    except HpcError:
        return (text,)

"""Which hosts, and how many tasks on each? Expands the two compressed notations of Slurm.

The rules are those of `scontrol show hostnames`, observed on Slurm 22.05. Commas outside of brackets separate names.
A range keeps the number of digits of its lower bound: `[098-101]` is 098 to 101. Where a name has several bracket
groups, the last one varies fastest, after it the first, then the second, and so on. The order matters, because
SLURM_NODEID counts along the expanded list. We differ from Slurm in two things: text may follow the last bracket, which
Slurm refuses; brackets must match, which Slurm does not check.
"""

from __future__ import annotations

import re
from itertools import product
from math import prod

from hpc.errors import WorldError

MOST_HOSTS = 1_000_000
"""A longer list is a typing error; the largest machines have some tens of thousands of nodes."""

_NAME = re.compile(r"(?:[^,\[\]]+|\[[^\]]*\])+")
_GROUP = re.compile(r"\[([^\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_TASKS = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


def expand_hostlist(text: str) -> tuple[str, ...]:
    """Expand a Slurm node list, keeping order and repetitions: `a[1-2,7],b` is a1, a2, a7, b.

    Raises:
        WorldError: Brackets do not match, a range is not one or goes down, or there are over a million hosts.
    """
    if re.sub(r"[^\[\]]+", "", text).replace("[]", ""):
        raise WorldError(
            f"The brackets of host list {_short(text)} must match one to one, without nesting, but do not."
        )
    hosts: list[str] = []
    for name in _NAME.findall(text):
        hosts += _expand_name(name.strip(), MOST_HOSTS - len(hosts))
    return tuple(host for host in hosts if host)


def expand_tasks_per_node(text: str) -> tuple[int, ...]:
    """Expand the task counts of all nodes: `4(x2),3` is 4, 4, 3.

    Raises:
        WorldError: The text is not such a list, or has over a million nodes.
    """
    counts: list[int] = []
    for part in text.split(","):
        match = _TASKS.fullmatch(part.strip())
        if match is None:
            raise WorldError(f"Tasks per node must be counts such as 4(x2),3 but {_short(text)} holds {_short(part)}.")
        repeats = int(match[2] or 1)
        _check_room(text, repeats, MOST_HOSTS - len(counts))
        counts += [int(match[1])] * repeats
    return tuple(counts)


def _expand_name(name: str, room: int) -> list[str]:
    if "[" not in name:
        return [name]
    pieces = _GROUP.split(name)
    groups = [_bounds(group, name) for group in pieces[1::2]]
    _check_room(name, prod(sum(high - low + 1 for low, high, _ in group) for group in groups), room)
    parts = [[number + end for number in _numbers(group)] for group, end in zip(groups, pieces[2::2], strict=True)]
    *before, fastest = parts
    heads = [pieces[0] + "".join(reversed(head)) for head in product(*reversed(before))]
    return [head + tail for head in heads for tail in fastest]


def _bounds(group: str, name: str) -> list[tuple[int, int, int]]:
    """Lowest number, highest number and number of digits of every range in one pair of brackets."""
    ranges = []
    for part in group.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise WorldError(
                f"Brackets in a host list hold numbers such as 001-016,20 but {_short(name)} has {part!r}."
            )
        low, high = int(match[1]), int(match[2] or match[1])
        if high < low:
            raise WorldError(f"A range in a host list must go up, but {_short(name)} has {part}: write {high}-{low}.")
        ranges.append((low, high, len(match[1])))
    return ranges


def _numbers(ranges: list[tuple[int, int, int]]) -> list[str]:
    return [str(number).zfill(width) for low, high, width in ranges for number in range(low, high + 1)]


def _check_room(text: str, count: int, room: int) -> None:
    if count > room:
        raise WorldError(f"A node list may name at most {MOST_HOSTS:,} nodes, but {_short(text)} takes it beyond that.")


def _short(text: str) -> str:
    """The beginning of a text, quoted: a node list may be a hundred kilobytes."""
    return repr(text if len(text) <= 80 else text[:77] + "...")

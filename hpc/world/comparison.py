"""Why do processes that should be ranks of one world disagree? Answers saved by `hpc world --json`, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpc.world.launcher import enumerate_words
from hpc.world.launchers import LAUNCHERS

TITLES = {row.name: row.title for row in LAUNCHERS}
SIGNS = {row.name: row.signs for row in LAUNCHERS}
SHOWN_VARIABLES = 6
"""A sentence that names more variables than this becomes too long to read."""


@dataclass(frozen=True)
class Answer:
    """What one process answered.

    Args:
        name: Where it was asked: the file's name.
        rank: Rank and world size.
        source: The launcher that it believed.
        job: Names its world; no other world has the same name.
        variables: Those of the launchers' variables that were set there, with their values.
    """

    name: str
    rank: tuple[int, int]
    source: str
    job: str
    variables: Mapping[str, str]


def differing_variables(answers: Sequence[Answer]) -> tuple[str, ...]:
    """Variables that are not the same, or not set, in all answers; sorted."""
    names = sorted({name for answer in answers for name in answer.variables})
    return tuple(name for name in names if len({answer.variables.get(name) for answer in answers}) > 1)


def explain_differences(answers: Sequence[Answer]) -> tuple[str, ...]:
    """One or two sentences for each answer after the first: how it differs from the first, and by which variables."""
    first, *others = answers
    return tuple(f"{first.name} and {other.name}: {_difference(first, other)}" for other in others)


def _difference(first: Answer, other: Answer) -> str:
    if first.source == other.source:
        return _same_launcher(first, other)
    sentences = [f"different launchers, {TITLES[first.source]} and {TITLES[other.source]}."]
    sentences += [_decision(first, other), _decision(other, first)]
    return " ".join(sentence for sentence in sentences if sentence)


def _same_launcher(first: Answer, other: Answer) -> str:
    title = TITLES[first.source]
    names = _decisive(first, other)
    decisive = f"{_listed(names)} {'decides' if len(names) == 1 else 'decide'}"
    if first.source == "none":
        return f"each is a world of one, because neither sees a launcher.{_lost(first, other)}"
    if (first.job, first.rank[1]) != (other.job, other.rank[1]):
        return f"two worlds of {title}, {first.job} and {other.job}; {decisive}."
    if first.rank != other.rank:
        return f"two ranks of one world, {first.rank[0]} and {other.rank[0]} of {first.rank[1]}; {decisive}."
    return f"the same rank of the same world, by {title}."


def _decision(one: Answer, two: Answer) -> str:
    """Which variables made `one` choose its launcher, and what became of them in `two`."""
    signs = [sign for sign in SIGNS[one.source] if one.variables.get(sign)]
    if not signs:
        return _lost(two, one).strip()
    claim = ", ".join(f"{sign}={one.variables[sign]}" for sign in signs)
    missing = tuple(sign for sign in signs if sign not in two.variables)
    if not missing:
        return f"{one.name} believes {claim}, which {two.name} sees, too, but something comes before it there."
    return f"{claim} decides in {one.name}; {_listed(missing)} {_is(missing)} not set in {two.name}."


def _lost(one: Answer, two: Answer) -> str:
    """Advice where none of the launcher variables of `one` reach `two`, as when a container or sudo drops them."""
    dropped = [name for name in one.variables if "_" in name and name != "HPC_LAUNCHER"]
    if not dropped or any(name in two.variables for name in dropped):
        return ""
    return (
        f" None of the {len(dropped)} launcher variables of {one.name} reach {two.name}: hand them on"
        " (`--env`, `--export=ALL`, `sudo --preserve-env`)."
    )


def _decisive(first: Answer, other: Answer) -> tuple[str, ...]:
    """The launcher's own variables that have different values in the two answers."""
    row = next(row for row in LAUNCHERS if row.name == first.source)
    names = dict.fromkeys((*row.signs, *row.needs))
    return tuple(name for name in names if first.variables.get(name) != other.variables.get(name))


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "variables of the job around them"
    shown = names[:SHOWN_VARIABLES]
    more = len(names) - len(shown)
    return enumerate_words((*shown, f"{more} more") if more else shown, "and")


def _is(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"

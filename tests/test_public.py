"""The names that people use, and their signatures, change on purpose or not at all.

`python -m tests.test_public` records them as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import hpc

RECORD = Path(__file__).parent / "public.txt"


def public_names() -> Iterator[str]:
    """A line for each name of hpc, and for each public method and property of its classes."""
    for name in hpc.__all__:
        yield from _lines(f"hpc.{name}", getattr(hpc, name))


def _lines(name: str, thing: object) -> Iterator[str]:
    yield f"{name}{inspect.signature(thing)}" if callable(thing) else f"{name}: {type(thing).__name__}"
    if inspect.isclass(thing):
        members = {member: value for part in reversed(thing.__mro__[:-1]) for member, value in vars(part).items()}
        for member, value in sorted(members.items()):
            if not member.startswith("_"):
                yield f"{name}.{member}{_signature(value)}"


def _signature(member: object) -> str:
    if isinstance(member, property):
        return f" -> {member.fget.__annotations__['return']}" if member.fget else ""
    if isinstance(member, (classmethod, staticmethod)):
        member = member.__func__
    return str(inspect.signature(member)) if callable(member) else f" = {member!r}"


def test_public_names_and_signatures_are_as_recorded() -> None:
    assert list(public_names()) == RECORD.read_text().splitlines()


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in public_names()))

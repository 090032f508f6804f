"""What is a launcher? One row of the table in `hpc.world.launchers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpc.world.readings.numbers import Environ
from hpc.world.world import World

STEP, INSIDE_A_STEP, INSIDE_ANYTHING = range(3)
"""How far inside another launcher one may run; the numbers of a shallower one then describe another world."""


def _no_doubt(_: Environ) -> str:
    return ""


def _no_advice(_: Environ, __: World) -> str:
    return ""


@dataclass(frozen=True)
class Launcher:
    """One row.

    Args:
        name: Its word in `World.source`, in runtime.launcher and in HPC_LAUNCHER.
        title: What it is called in a sentence.
        signs: Where any of these is set, the launcher claims this process; without signs it always does.
        needs: What must be set, too, once it does.
        read: From a complete environment to a World; raises WorldError when the numbers cannot be.
        facts: Where the meaning of the variables was learned, with versions.
        owns: What it puts into the environment of what it starts, besides signs and needs: names, and the
            beginnings of names, which end in `_`.
        depth: STEP, INSIDE_A_STEP or INSIDE_ANYTHING; two launchers of one depth must agree.
        doubt: Why the signs do not count this time, or "".
        advice: What the user should know about this world, or "".
    """

    name: str
    title: str
    signs: tuple[str, ...]
    needs: tuple[str, ...]
    read: Callable[[Environ], World]
    facts: str
    owns: tuple[str, ...] = ()
    depth: int = STEP
    doubt: Callable[[Environ], str] = _no_doubt
    advice: Callable[[Environ, World], str] = _no_advice

    def is_absent(self, environ: Environ) -> bool:
        """Whether nothing hints at this launcher."""
        return bool(self.signs) and not any(environ.get(sign) for sign in self.signs)

    def refusal(self, environ: Environ) -> str:
        """Why this launcher did not start this process, or "" when it did."""
        if self.is_absent(environ):
            return f"{enumerate_words(self.signs, 'and')} {'is' if len(self.signs) == 1 else 'are'} not set"
        return self.doubt(environ)

    def has_set(self, variable: str) -> bool:
        """Whether an environment variable of this name is this launcher's."""
        begins = tuple(name for name in self.owns if name.endswith("_"))
        return variable in (*self.signs, *self.needs, *self.owns) or variable.startswith(begins)

    def missing(self, environ: Environ) -> tuple[str, ...]:
        """The needed variables that are not set, or are empty."""
        return tuple(name for name in self.needs if not environ.get(name))


def enumerate_words(words: tuple[str, ...], last: str) -> str:
    """Join words as a sentence does: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"

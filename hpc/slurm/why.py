"""Why has a life of a job ended, and what follows? One table answers it, for the batch script as for Python.

slurm_templates/verdicts.sh has the table, because a batch script must decide where there is no Python: the run may live
in a container. Its patterns are those of the shell's `case`, which fnmatch knows, too.

Sources: scontrol(1) of 22.05 for the fields; what they are at that moment was recorded on a real Slurm, see
tests/slurm_records/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from hpc.paths import TEMPLATE_DIR

AGAIN, IF_ASKED, ALREADY, NOTHING = "again", "if_asked", "already", "nothing"
"""What follows: the next life, which somebody must arrange; the same where launch.retry_exceptions says so; the next
life, which is arranged; nothing."""
CRASH, LIFE = "crash", "life"
"""What a life counts as: see `hpc.attempt.budgets`."""
ROW = re.compile(r'^    (\S+)\) echo (\w+) (\w+) (\w+) "(.*)" ;;$', re.MULTILINE)
MEMORY = re.compile(r"^hpc_memory_words='(.*)'$", re.MULTILINE)


@dataclass(frozen=True)
class Life:
    """What is known of a life besides the controller's record.

    Args:
        code: The exit code of its step, as 128+n for signal n.
        restarts: How often the job was restarted before it.
        failure: What the first rank to fail has told; "" where none could tell.
        failure_code: The exit code that this rank meant to leave with; None likewise.
        is_echo: Whether all that any rank has told is that another one is gone.
    """

    code: int
    restarts: int = 0
    failure: str = ""
    failure_code: int | None = None
    is_echo: bool = False

    @property
    def meant_code(self) -> int:
        """The code of the first rank to fail, if it says more than 1: the step's may be of a rank killed later."""
        return self.code if self.failure_code in (None, 1) else int(self.failure_code or 0)

    @property
    def told(self) -> str:
        """The kind of the first failure: memory, echo, exception, or nothing."""
        if re.search(_memory_words(), self.failure):
            return "memory"
        return "echo" if self.is_echo else "exception" if self.failure else "nothing"


class Verdict(NamedTuple):
    """What is thought of the end of a life.

    Args:
        name: Of the verdict.
        follows: AGAIN, IF_ASKED, ALREADY or NOTHING.
        budget: CRASH, LIFE or NOTHING.
        phrase: About the job, which is its subject.
    """

    name: str
    follows: str
    budget: str
    phrase: str


def why(record: Mapping[str, str], life: Life) -> Verdict:
    """Why a life has ended.

    Args:
        record: The controller's record of the job at that moment, as `scontrol show job --oneliner` has it and
            `hpc.slurm.client.parse_record` reads it; empty where nobody answers.
        life: The rest.
    """
    facts = ":".join(_facts(record, life))
    return next(verdict for pattern, verdict in rows() if any(fnmatchcase(facts, each) for each in pattern.split("|")))


@cache
def rows() -> tuple[tuple[str, Verdict], ...]:
    """The table: patterns with | between them, and what they mean; the first that fits counts."""
    return tuple((pattern, Verdict(*words)) for pattern, *words in ROW.findall(_text()))


def phrase_of(verdict: str) -> str:
    """What a verdict says of its job; "ended" where this version does not know it."""
    return next((known.phrase for _, known in rows() if known.name == verdict), "ended")


def _facts(record: Mapping[str, str], life: Life) -> tuple[str, ...]:
    restarts = record.get("Restarts")
    same = "" if restarts is None else "same" if restarts == str(life.restarts) else "more"
    preempted = "set" if record.get("PreemptTime", "")[:1].isdigit() else "none"
    return (str(life.meant_code), life.told, record.get("JobState", ""), same, record.get("Reason", ""), preempted)


@cache
def _text() -> str:
    return (TEMPLATE_DIR / "verdicts.sh").read_text()


@cache
def _memory_words() -> str:
    return "|".join(MEMORY.findall(_text()))

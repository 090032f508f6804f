"""What is known of the end of an attempt? What ranks said, how they ended, and where they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc.attempt.cause import signal_name
from hpc.attempt.statement import Statement
from hpc.errors import EXIT_HUNG
from hpc.slurm.step_end import Exit, StepEnd


@dataclass(frozen=True)
class Position:
    """Where a rank was when it was heard last.

    Args:
        step: The step that it was in; None before the first.
        phase: What it did; "" where that is not known.
        host: Its node; "" likewise.
        time: When it came there, in seconds since the epoch.
    """

    step: int | None = None
    phase: str = ""
    host: str = ""
    time: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """Everything that is known of the end of an attempt.

    Args:
        statements: Of the ranks that said something, in any order.
        end: What was seen of their ends.
        positions: Where each rank was when it was heard last; ranks may be missing.
        world_size: Number of ranks; 0 where that is not known.
        last_lines: What the rank that is the cause wrote last, where it has not told the cause itself.
    """

    statements: tuple[Statement, ...] = ()
    end: StepEnd = field(default_factory=StepEnd)
    positions: Mapping[int, Position] = field(default_factory=dict)
    world_size: int = 0
    last_lines: tuple[str, ...] = ()

    def told(self, *sorts: str) -> list[Statement]:
        """The statements of these sorts."""
        return [each for each in self.statements if each.sort in sorts]

    @property
    def speakers(self) -> set[int]:
        """Ranks that said something."""
        return {each.rank for each in self.statements}

    @property
    def silent(self) -> list[int]:
        """Ranks that said nothing."""
        return [rank for rank in range(self.world_size) if rank not in self.speakers]

    @property
    def stuck(self) -> list[int]:
        """Ranks that said nothing and did not leave by themselves; where some had to be killed for it, only these."""
        left = {each.rank for each in self.end.exits if not each.is_ended}
        killed = {each.rank for each in self.end.exits if each.is_ended and signal_name(each.code) == "SIGKILL"}
        found = [rank for rank in self.silent if rank not in left]
        return [rank for rank in found if rank in killed] or found

    @property
    def deaths(self) -> list[Exit]:
        """Ends of ranks that said nothing, were not told to end, and did so before a watchdog asked for stacks."""
        hung, speakers = self.hung_since, self.speakers
        own = [each for each in self.end.exits if not each.is_ended and each.rank not in speakers]
        return [each for each in own if each.time is None or each.time <= hung]

    @property
    def hung_since(self) -> float:
        """When a watchdog found that no rank goes on, and asked all of them for their stacks, which may end one."""
        return min((each.time for each in self.statements if each.code == EXIT_HUNG), default=math.inf)

    def host_of(self, rank: int) -> str:
        """Its node, by whoever names it; "" where nobody does."""
        told = [each.host for each in self.statements if each.rank == rank]
        named = [host for host in (*told, *(each.host for each in self.end.exits if each.rank == rank)) if host]
        return named[0] if named else self.positions.get(rank, Position()).host

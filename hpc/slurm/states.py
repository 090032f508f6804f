"""What do Slurm's words for a job's state mean for us?

Source: squeue(1), JOB STATE CODES, 22.05 to 25.11. A requeued job looks ended for a moment (PREEMPTED, NODE_FAIL,
TIMEOUT): whoever reads one of these asks the run's own files first.
"""

from __future__ import annotations

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
"""It is in the queue, and has no nodes."""
ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
    }
)
"""It has no nodes any more. A word that is in neither of the two belongs to a job that has nodes."""


def state_word(text: str) -> str:
    """The first word of a state: `CANCELLED by 1000`, `RUNNING+COMPLETING`."""
    return text.strip().replace("+", " ").partition(" ")[0].upper()

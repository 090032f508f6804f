"""What can go wrong, and the exit code that says so to the batch script.

    HpcError
    ├── ConfigurationError    78  a setting is wrong; nothing was submitted or written
    │   ├── WorldError            the launcher's variables do not describe one world
    │   └── SubmissionError       the scheduler refused, or could not be asked
    ├── SlurmError             1  a Slurm command failed; carries the command and its stderr
    ├── SaveError             74  a checkpoint could not be made durable
    ├── LoadError             65  checkpoints were committed, and none of them loads
    ├── HungError             70  no rank went on any more, and a watchdog has ended the attempt
    ├── NoProgressError       76  several lives in a row ended without a new checkpoint
    ├── DivergedError         79  a logged value is not finite; nothing was saved from there on
    └── DriftError            80  ranks hold different weights; nothing was saved from there on

The codes are those of sysexits.h where it has one. 85 and 86 are left alone: sites put them in RequeueExit.
"""

from __future__ import annotations

EXIT_CONTINUE = 75
"""Stopped after a committed save: the batch script asks for a requeue (EX_TEMPFAIL)."""
EXIT_HUNG = 70
"""A rank makes no progress any more: the run goes on in another life, as after a crash (EX_SOFTWARE)."""
EXIT_INTERRUPTED = 130
"""A person has ended it: with Ctrl-C, and nothing more was done, or with a stop file, after a save: 128 + SIGINT."""
NO_FAILURES = (0, EXIT_CONTINUE, EXIT_INTERRUPTED)
"""What a rank leaves with that has not failed."""


class HpcError(Exception):
    """Base of every error raised on purpose; its message is one sentence a user can act on."""

    exit_code = 1


class ConfigurationError(HpcError):
    """A setting cannot be what it is (EX_CONFIG)."""

    exit_code = 78


class WorldError(ConfigurationError):
    """Rank, world size or rendezvous cannot be right."""


class SubmissionError(ConfigurationError):
    """Nothing was submitted."""


class SlurmError(HpcError):
    """A Slurm client command failed.

    Args:
        command: The command line, as typed.
        stderr: What the command said.
    """

    def __init__(self, command: str, stderr: str) -> None:
        super().__init__(f"`{command}` failed: {stderr.strip() or 'it said nothing'}")
        self.command = command
        self.stderr = stderr


class SaveError(HpcError):
    """A checkpoint could not be written, verified or committed (EX_IOERR)."""

    exit_code = 74


class LoadError(HpcError):
    """Checkpoints exist, and none of them can be trusted (EX_DATAERR)."""

    exit_code = 65


class HungError(HpcError):
    """No rank went on any more, and a watchdog has ended the attempt (EX_SOFTWARE)."""

    exit_code = 70


class NoProgressError(HpcError):
    """The job keeps being restarted and never gets to its next checkpoint."""

    exit_code = 76


class DivergedError(HpcError):
    """Training has diverged: more of it would be wasted (79 is free: sysexits.h ends at 78)."""

    exit_code = 79


class DriftError(HpcError):
    """Ranks hold different values where they should hold one, so that no checkpoint could say what is trained."""

    exit_code = 80

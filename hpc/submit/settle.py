"""What has become of calls of sbatch that have left no answer? It is looked up before anything is sent again.

A command may be killed after sbatch has sent its script, and a busy controller answers too late: sbatch then ends with
an error, and the job is in the queue all the same (nextflow-io/nextflow#970). The name of a script's file is used for
one call only, and squeue shows it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpc.errors import ConfigurationError, SlurmError
from hpc.run.calls import Call, alone, open_calls, record_answer, record_void
from hpc.run.directory import not_writable
from hpc.run.submissions import LOGS, SUBMISSIONS_FILE
from hpc.say import say
from hpc.slurm import client


def settle_before(directory: Path) -> None:
    """Look up what a command that was killed has left open, if there is such a thing.

    Raises:
        ConfigurationError: Slurm does not answer, another command submits at this moment, or it cannot be noted.
    """
    try:
        if not open_calls(directory):
            return
        with alone(directory):
            found = settle(directory)
    except SlurmError as error:
        raise ConfigurationError(
            "Slurm must say whether it has a job that an earlier command has sent, but does not "
            f"({' '.join(error.stderr.split())}): try again when it does."
        ) from error
    except OSError as error:
        raise not_writable(directory / SUBMISSIONS_FILE, error) from error
    for call, job in found:
        if job is not None:
            say(f"Job {job} is of an earlier command that did not live to note it: {len(call.submission.points)} "
                f"point{'s' * (len(call.submission.points) > 1)} of {directory}.")  # fmt: skip


def settle(directory: Path) -> list[tuple[Call, str | None]]:
    """Every open call, and the job that it made: None where it made none, and is void now.

    Raises:
        SlurmError: The controller does not answer.
        OSError: It cannot be noted.
    """
    found = [(call, queued_as(call)) for call in open_calls(directory)]
    for call, job in found:
        script = directory / LOGS / call.script
        if job is None:
            record_void(directory, call)
            script.unlink(missing_ok=True)
            continue
        record_answer(directory, call, replace(call.submission, job=job))
        with suppress(FileNotFoundError):
            script.replace(script.with_name(f"{job}_submission.sh"))
    return found


def queued_as(call: Call) -> str | None:
    """The job or array that a call has made; None where the controller knows none.

    Raises:
        SlurmError: It does not answer.
    """
    clusters = call.submission.clusters
    lines = client.ask(
        ["squeue", *client.at(clusters), "--me", "--states=all", "--noheader", "--format=%F|%o"]
    ).splitlines()
    jobs = (line.partition("|") for line in lines)
    return next((job.strip() for job, _, command in jobs if call.script in command), None)

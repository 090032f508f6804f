"""Did Slurm take a script although sbatch gave up waiting for the answer? It is looked up before it is sent again.

A busy controller answers late: sbatch then ends with an error, and the job is in the queue all the same
(nextflow-io/nextflow#970). The name of a script's file is used for one submission only, and squeue shows it.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from submitit.core.utils import FailedSubmissionError

from hpc.errors import SlurmError, SubmissionError
from hpc.slurm import client

UNSURE = re.compile(r"timed? ?out|unable to contact|connection|communication|zero bytes|send/recv", re.IGNORECASE)
"""What Slurm's commands say when they do not know what became of a request (src/common/slurm_errno.c)."""
SUBMITTED = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)
"""What sbatch says; a site's own words may stand before and after it."""
WAITS_SECONDS = (1, 5, 15, 30)
"""Before each look: a controller that did not answer is busy."""


def is_unsure(words: str) -> bool:
    """Whether sbatch has failed in a way that leaves open whether there is a job."""
    return bool(UNSURE.search(words))


def number_of(words: str) -> str:
    """The job's number in what sbatch has said.

    Raises:
        FailedSubmissionError: There is none.
    """
    found = SUBMITTED.search(words)
    if found is None:
        raise FailedSubmissionError(f"sbatch must say the number of the job, but said: {words.strip() or 'nothing'}")
    return found[1]


def sent_once(script: Path, clusters: str | None) -> str:
    """The number of the job that was made of a script, which is sent again where there is none.

    Args:
        script: sbatch was given it, and gave up.
        clusters: Other clusters than this one, as --clusters names them.

    Raises:
        SubmissionError: The controller does not answer, or refuses it.
    """
    reason = ""
    for seconds in WAITS_SECONDS:
        time.sleep(seconds)
        try:
            return queued_as(script, clusters) or number_of(client.ask(["sbatch", str(script)]))
        except SlurmError as error:
            if not is_unsure(str(error)):
                raise SubmissionError(f"sbatch refused the job: {error}") from error
            reason = str(error)
    raise SubmissionError(
        f"Slurm must say whether it has the job of {script.name}, but does not answer ({reason}): look at "
        "`squeue --me` before you submit it again."
    )


def queued_as(script: Path, clusters: str | None) -> str | None:
    """The job or array whose script has this name; None where the controller knows none.

    Raises:
        SlurmError: It does not answer.
    """
    there = [f"--clusters={clusters}"] if clusters else []
    lines = client.ask(["squeue", *there, "--me", "--states=all", "--noheader", "--format=%F|%o"]).splitlines()
    jobs = (line.partition("|") for line in lines)
    return next((job.strip() for job, _, command in jobs if script.name in command), None)

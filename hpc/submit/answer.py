"""What does sbatch say: which job it has made, that it refuses, or nothing that is sure?"""

from __future__ import annotations

import re

from submitit.core.utils import FailedSubmissionError

UNSURE = re.compile(r"timed? ?out|unable to contact|connection|communication|zero bytes|send/recv", re.IGNORECASE)
"""What Slurm's commands say when they do not know what became of a request (src/common/slurm_errno.c)."""
SUBMITTED = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)
"""What sbatch says; a site's own words may stand before and after it."""


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

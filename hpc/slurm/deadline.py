"""When does this job's allocation end?"""

from __future__ import annotations

from collections.abc import Mapping

from hpc.errors import SlurmError
from hpc.slurm import client


def allocation_end(environ: Mapping[str, str]) -> float | None:
    """When this job's time is up, in seconds since the epoch; None outside of a job, or where it is not known.

    Slurm sets SLURM_JOB_END_TIME from 23.02 on; an older one is asked.
    """
    if "SLURM_JOB_END_TIME" in environ:
        return float(environ["SLURM_JOB_END_TIME"])
    if "SLURM_JOB_ID" not in environ:
        return None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    try:
        return client.end_time(client.show_job(f"{array}_{task}" if array else environ["SLURM_JOB_ID"]))
    except SlurmError:
        return None

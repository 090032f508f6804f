"""The batch script of a plan, and the submitit executor that sends exactly that text.

submitit writes the script and hands it to sbatch; what is ours rides in it as `setup` and `teardown` lines.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from hpc.files import narrow_umask
from hpc.paths import TEMPLATE_DIR
from hpc.run.grace import first_grace_seconds
from hpc.run.ownership import make_private
from hpc.submit import pack, worker
from hpc.submit.answer import number_of
from hpc.submit.options import site_options
from hpc.submit.plan import Plan, Retries
from hpc.submit.variables import exports, write_secrets

PAYLOAD = "hpc.submit.payload"
"""The module that a task runs, with the sweep's directory, the point's name, and who may write there."""


class _Executor(SlurmExecutor):
    """Can be built where there is no srun: a laptop prints the same script as the login node.

    Tasks are told their point by the command line, so that there is nothing to unpickle: submitit would keep a file for
    each point, whose name holds the number of the array and so is known too late to write them all before.

    Args:
        plan: Whose tasks it starts.
        begins: Told the script's file before sbatch is.
    """

    def __init__(self, plan: Plan, begins: Callable[[Path], object]) -> None:
        super().__init__(folder=plan.log_directory, python=worker.command(plan))
        self.writers, self.begins = plan.cluster.run_dir_writers, begins
        self.is_packed = plan.per_job > 1
        self.sent: list[Path] = []

    @classmethod
    def affinity(cls) -> int:
        return 2

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        self.sent.append(submission_file_path)
        self.begins(submission_file_path)
        return ["sbatch", str(submission_file_path)]

    @staticmethod
    def _get_job_id_from_submission_command(string: bytes | str) -> str:
        return number_of(string if isinstance(string, str) else string.decode())

    @property
    def _submitit_command_str(self) -> str:
        return pack.COMMAND if self.is_packed else self.worker

    @property
    def worker(self) -> str:
        """What srun starts for each rank."""
        return f'{self.python} -u -m {PAYLOAD} "$hpc_sweep" "$hpc_point" {self.writers}'


def executor(plan: Plan, begins: Callable[[Path], object] = lambda _: None) -> _Executor:
    """A submitit executor whose script is the plan's."""
    result = _Executor(plan, begins)
    parameters = _parameters(plan)
    if plan.per_job > 1:
        ranks = pack.setup(plan.per_job, parameters["srun_args"], result.worker)
        parameters |= {"setup": [*parameters["setup"], *ranks], "teardown": pack.teardown(parameters["teardown"])}
        parameters |= {"use_srun": False, "srun_args": None}
    result.update_parameters(**parameters)
    if plan.jobs > 1:
        result.parameters["map_count"] = plan.jobs
    return result


def options(plan: Plan) -> frozenset[str]:
    """Names of the sbatch options that the script sets."""
    return frozenset(asked_options(plan))


def asked_options(plan: Plan) -> dict[str, str]:
    """The sbatch options that the script sets, and their values; "" where one has none."""
    found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script(plan), re.MULTILINE)
    return {name: " ".join(shlex.split(value)) for name, value in found}


def script(plan: Plan) -> str:
    """What sbatch receives, byte for byte."""
    source = executor(plan)
    return str(source._make_submission_file_text(source._submitit_command_str, uid=""))


def send_script(plan: Plan, begins: Callable[[Path], object]) -> str:
    """Hand it to sbatch; returns the id that squeue shows, of the array or of the one job.

    Args:
        plan: What is sent.
        begins: Told the script's file before sbatch is; no other script has its name.

    Raises:
        FailedJobError, FailedSubmissionError: sbatch failed, or said something else than an id.
        OSError: The script cannot be written into the plan's log directory.
    """
    source = executor(plan, begins)
    make_private(plan.log_directory)
    write_secrets(plan)
    with narrow_umask():
        job_id = str(source._submit_command(source._submitit_command_str).job_id)
    for link in source.sent:  # to a file that has the job's number by now; sites count inodes
        link.unlink(missing_ok=True)
    return job_id


def _parameters(plan: Plan) -> dict[str, Any]:
    hardware, cluster = plan.hardware, plan.cluster
    further: dict[str, str | bool] = {"comment": plan.sweep_directory.name, **site_options(cluster)}
    if plan.waits_for:
        own = further.get("dependency")
        further["dependency"] = ",".join([f"afterany:{':'.join(plan.waits_for)}", *([str(own)] if own else [])])
    if "requeue" not in cluster.sbatch and "no-requeue" not in further:
        further["requeue"] = True
    return {
        "job_name": plan.job_name,
        "time": hardware.time_limit_minutes,
        "nodes": hardware.nodes,
        "ntasks_per_node": hardware.tasks_per_node or 1,
        "cpus_per_task": hardware.cpus_per_task,
        "mem": None if hardware.memory_gb is None else f"{hardware.memory_gb}G",
        "gres": asked_gres(plan),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "signal_delay_s": first_grace_seconds(cluster, hardware),
        "array_parallelism": plan.parallel_points,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's default wckey is refused by sites that check it (submitit#1632)
        "additional_parameters": further,
        "srun_args": _srun_arguments(plan),
        "setup": _setup(plan),
        "teardown": _template("epilogue.sh"),
    }


def asked_gres(plan: Plan, of_point: bool = False) -> str | None:
    """What --gres says, of a job or of a point; None where no GPUs are asked for, or are by other options."""
    hardware, spelling = (of_point and plan.of_point) or plan.hardware, plan.cluster.gres
    if not hardware.gpus_per_node or not spelling:
        return None
    if not hardware.gpu_type:
        spelling = spelling.replace(":{gpu_type}", "")
    return spelling.format(gpu_type=hardware.gpu_type, gpus_per_node=hardware.gpus_per_node)


def _srun_arguments(plan: Plan) -> list[str]:
    """A dead rank ends the step; CPUs are said again because Slurm 22.05 and 23.02 do not hand them on."""
    cpus = plan.hardware.cpus_per_task
    inherited = [] if cpus is None else [f"--cpus-per-task={cpus}"]
    share = pack.share(plan.of_point, asked_gres(plan, of_point=True)) if plan.per_job > 1 and plan.of_point else []
    return ["--kill-on-bad-exit=1", *share, *inherited, *plan.cluster.srun, *worker.srun_options(plan)]


def _setup(plan: Plan) -> list[str]:
    return [
        *exports(plan, worker.python_path(plan)),
        f"hpc_sweep={shlex.quote(str(plan.sweep_directory))}",
        f"hpc_call={plan.number}",
        f"hpc_points=({shlex.join(plan.points)})",
        *_retries(plan.retries),
        *plan.cluster.setup,
        *_template("prologue.sh"),
        *_template("verdicts.sh"),
        *worker.setup(plan),
    ]


def _retries(retries: Retries) -> list[str]:
    """What the epilogue goes by; a switch that is off is empty."""
    switches = {"retry_exceptions": retries.exceptions, "exclude_failed_nodes": retries.exclude_nodes}
    return [
        f"hpc_max_crashes={retries.max_crashes} hpc_max_lives={retries.max_lives}",
        " ".join(f"hpc_{name}={1 if is_on else ''}" for name, is_on in switches.items()),
    ]


def _template(name: str) -> list[str]:
    return (TEMPLATE_DIR / name).read_text().splitlines()

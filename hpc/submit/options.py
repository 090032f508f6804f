"""Which sbatch options may a site add, and how are they written?

What a plan sets by itself has a setting of its own; given a second time, one of the two would be lost in silence.
"""

from __future__ import annotations

from typing import Any

from hpc.config import Cluster
from hpc.config.limits import CONTROL
from hpc.errors import ConfigurationError
from hpc.submit.variables import check_variables

OWNED = {
    "nodes": "hardware.nodes",
    "ntasks": "hardware.tasks_per_node",
    "ntasks-per-node": "hardware.tasks_per_node",
    "ntasks-per-core": "hardware.tasks_per_node",
    "ntasks-per-socket": "hardware.tasks_per_node",
    "ntasks-per-gpu": "hardware.tasks_per_node",
    "cpus-per-task": "hardware.cpus_per_task",
    "mem": "hardware.memory_gb",
    "mem-per-cpu": "hardware.memory_gb",
    "mem-per-gpu": "hardware.memory_gb",
    "time": "hardware.time_limit_minutes",
    "gres": "hardware.gpus_per_node and cluster.gres",
    "partition": "cluster.partition",
    "account": "cluster.account",
    "qos": "cluster.qos",
    "constraint": "cluster.constraint",
    "signal": "cluster.grace_seconds",
    "job-name": "experiment.name",
    "array": "a sweep (`seed=0,1,2`)",
    "output": "run_dir",
    "error": "run_dir",
    "open-mode": "run_dir",
}
"""By name: what says it instead."""
GPUS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task")
"""Ways to ask for GPUs beside gres; of all of them one may be used."""
NOT_A_JOB = (
    *("wrap", "parsable", "quiet", "test-only", "help", "usage", "version", "batch", "het-group", "wait"),
    *("uid", "gid"),
)
"""What would make sbatch do something else than to send the script and say its number."""


CHANGEABLE = ("comment", "requeue", "no-requeue")
"""What a plan sets unless the site sets it."""
CLOCKS = ("begin", "deadline")
"""Points in time: never a number, but YAML reads 16:00 as 960."""


def site_options(cluster: Cluster) -> dict[str, str | bool]:
    """The options of cluster.sbatch by their names there; True is an option without a value.

    Raises:
        ConfigurationError: One of them cannot be an option, or is the plan's own.
    """
    given = {name.replace("_", "-"): value for name, value in cluster.sbatch.items()}
    return {name: _value(name, value) for name, value in given.items() if value is not None and value is not False}


def check_options(cluster: Cluster) -> None:
    """Look at every option, left out or not.

    Raises:
        ConfigurationError: One of them cannot be an option, or is the plan's own.
    """
    names = [name.replace("_", "-") for name in cluster.sbatch]
    for name in names:
        _check_name(name, cluster)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigurationError(f"cluster.sbatch must have {twice[0]} once, but spells it with - and with _.")
    if {"requeue", "no-requeue"} <= site_options(cluster).keys():
        raise ConfigurationError("cluster.sbatch must have requeue or no-requeue, but has both.")
    check_variables(cluster)


def _check_name(name: str, cluster: Cluster) -> None:
    if not name.replace("-", "").isalnum() or name.startswith("-") or not name.isascii():
        raise ConfigurationError(f"cluster.sbatch must have names of options without their dashes, but has {name!r}.")
    if len(name) == 1:
        raise ConfigurationError(f"cluster.sbatch must have whole names of options, but has {name}.")
    if name in NOT_A_JOB:
        raise ConfigurationError(f"cluster.sbatch must not have {name}: a plan is one job, sent as it is printed.")
    if name in OWNED:
        raise ConfigurationError(f"cluster.sbatch must not have {name}: it is set by {OWNED[name]}.")
    whole = [each for each in (*OWNED, *NOT_A_JOB, *CHANGEABLE) if each.startswith(name) and each != name]
    if whole:
        raise ConfigurationError(
            f"cluster.sbatch must have whole names of options, but has {name}, which sbatch takes for {whole[0]}."
        )
    if name in GPUS and cluster.gres:
        raise ConfigurationError(
            f"cluster.sbatch must not have {name} beside cluster.gres, because GPUs are asked for once: "
            "set cluster.gres=null."
        )


def _value(name: str, value: Any) -> str | bool:
    if value is True:
        return True
    if name in CLOCKS and isinstance(value, int):
        raise ConfigurationError(
            f"cluster.sbatch.{name} must be a time in quotes, as '16:00', which YAML reads as a number without them, "
            f"but is {value}."
        )
    if isinstance(value, (list, tuple)) and value and all(type(each) in (str, int, float) for each in value):
        value = ",".join(map(str, value))
    if not isinstance(value, (str, int, float)) or value == "":
        raise ConfigurationError(f"cluster.sbatch.{name} must be a text, a number, true or false, but is {value!r}.")
    if not CONTROL.isdisjoint(str(value)):
        raise ConfigurationError(
            f"cluster.sbatch.{name} must be one line without control characters, but is {str(value)!r}."
        )
    if "\\" in str(value):
        raise ConfigurationError(
            f"cluster.sbatch.{name} must be without backslashes, which sbatch takes out of its options, but is {value}."
        )
    return str(value)

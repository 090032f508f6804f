"""What do Kubernetes, SageMaker and the TPU runtime say? The first two number pods, and a pod is not a rank."""

from __future__ import annotations

import json

from hpc.errors import WorldError
from hpc.world.readings import numbers
from hpc.world.readings.numbers import Environ
from hpc.world.world import World


def read_kubeflow(environ: Environ) -> World:
    """One pod is a world of one.

    Raises:
        WorldError: There are several pods, whose ranks only torchrun knows.
    """
    pods = environ.get("PET_NNODES") or "1"
    if pods != "1":
        processes = environ.get("PET_NPROC_PER_NODE") or "1"
        raise WorldError(
            f"PET_NNODES={pods} and PET_NPROC_PER_NODE={processes} must be read by torchrun, because they count pods,"
            " but this process was started without it: make `torchrun train.py` the command of the container."
        )
    return numbers.alone("kubeflow", f"kubeflow.{environ.get('PET_RDZV_ID') or environ.get('HOSTNAME') or 'pod'}")


def kubeflow_doubt(environ: Environ) -> str:
    """With one process in each pod, the RANK that version 1 of the operator sets is the process's rank."""
    complete = all(environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    if complete and environ.get("PET_NPROC_PER_NODE", "1") == "1":
        return "each pod has one process, so RANK and WORLD_SIZE count processes"
    return ""


def kubeflow_advice(environ: Environ, _: World) -> str:
    """Advice where the pod should have several processes."""
    processes = environ.get("PET_NPROC_PER_NODE", "1")
    if processes == "1":
        return ""
    return (
        f"PET_NPROC_PER_NODE={processes} asks for more than this one process: make `torchrun train.py` the command of"
        " the container."
    )


def read_kubernetes(environ: Environ) -> World:
    """A pod knows its index and not how many there are, so it is a world of one."""
    attempt = "JOBSET_RESTART_ATTEMPT"
    restarts = numbers.count(environ, attempt) if environ.get(attempt) else 0
    job = f"kubernetes.{environ.get('HOSTNAME') or 'pod'}.{environ['JOB_COMPLETION_INDEX']}"
    return numbers.alone("kubernetes", job, restarts)


def kubernetes_advice(environ: Environ, _: World) -> str:
    """Advice where there is certainly another pod, which is so in every pod but the first."""
    position = environ["JOB_COMPLETION_INDEX"]
    if position == "0":
        return ""
    return (
        f"JOB_COMPLETION_INDEX={position} says that there are other pods, and this process is one alone: where they"
        " train together, start `torchrun --nnodes=<pods> --node-rank=$JOB_COMPLETION_INDEX` in each."
    )


def read_sagemaker(environ: Environ) -> World:
    """One host is a world of one.

    Raises:
        WorldError: SM_HOSTS is not a list, or has several hosts, whose ranks only torchrun knows.
    """
    try:
        hosts = json.loads(environ["SM_HOSTS"])
    except ValueError:
        hosts = None
    if not isinstance(hosts, list) or not hosts:
        raise WorldError(f"SM_HOSTS must be a JSON list of hosts, but is {environ['SM_HOSTS'][:80]!r}: unset it.")
    if len(hosts) > 1:
        raise WorldError(
            f"SM_HOSTS must be read by torchrun, because it counts hosts, but this process was started without it on"
            f" one of {len(hosts)}: choose distribution={{'torch_distributed': {{'enabled': True}}}} in the estimator."
        )
    return numbers.alone("sagemaker", f"sagemaker.{environ.get('TRAINING_JOB_NAME') or 'job'}")


def sagemaker_advice(environ: Environ, _: World) -> str:
    """Advice where the host has more GPUs than this process uses."""
    gpus = environ.get("SM_NUM_GPUS", "0")
    if gpus in ("0", "1"):
        return ""
    return f"This host has {gpus} GPUs and this process is one alone: start it with `torchrun --nproc-per-node={gpus}`."


def read_xla(environ: Environ) -> World:
    """What torch_xla's own launcher tells the processes it starts; TPU_WORKER_* name the hosts of a slice."""
    local_size = numbers.count(environ, "PJRT_LOCAL_PROCESS_COUNT", 1)
    local_rank = numbers.index(environ, "PJRT_LOCAL_PROCESS_RANK", local_size, "PJRT_LOCAL_PROCESS_COUNT")
    hosts = tuple(host for host in environ.get("TPU_WORKER_HOSTNAMES", "").split(",") if host)
    several = len(hosts) > 1
    if several and not environ.get("TPU_WORKER_ID"):
        raise WorldError(
            f"TPU_WORKER_ID must be set where TPU_WORKER_HOSTNAMES names {len(hosts)} hosts, but is not: set it to this"
            " host's place among them."
        )
    node = numbers.index(environ, "TPU_WORKER_ID", len(hosts), "the hosts in TPU_WORKER_HOSTNAMES") if several else 0
    nodes = len(hosts) if several else 1
    place = (local_rank, local_size, node, nodes, hosts if several else numbers.LOOPBACK)
    return World(node * local_size + local_rank, nodes * local_size, *place, "xla", f"xla.{','.join(hosts) or 'host'}")

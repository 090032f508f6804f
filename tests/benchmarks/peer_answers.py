"""What does each peer say about the process that runs this? Each is asked in a forked child, so one that hangs is left.

    python peer_answers.py FILE NODES TASKS_PER_NODE

NODES and TASKS_PER_NODE are what a user would tell Fabric, which wants to be told.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing import Process, Queue
from pathlib import Path
from queue import Empty
from typing import Any

HANG_SECONDS = 40
PARTS = ("rank", "world_size", "local_rank", "local_world_size", "master")

Answer = dict[str, Any]


def ask_fabric(nodes: int, tasks_per_node: int) -> Answer:
    """What Fabric(accelerator="cpu", strategy="ddp", ...).launch() sets up before it connects."""
    connector = import_module("lightning_fabric.connector")
    strategy = connector._Connector(accelerator="cpu", strategy="ddp", devices=tasks_per_node, num_nodes=nodes).strategy
    environment = strategy.cluster_environment
    environment.validate_settings(num_devices=tasks_per_node, num_nodes=nodes)
    strategy._set_world_ranks()
    return {
        "rank": environment.global_rank(),
        "world_size": environment.world_size(),
        "local_rank": environment.local_rank(),
        "master": environment.main_address,
    }


def ask_ignite(nodes: int, tasks_per_node: int) -> Answer:  # noqa: ARG001
    """What ignite.distributed.initialize("gloo") gives to torch's env://."""
    model = import_module("ignite.distributed.comp_models.native")._NativeDistModel
    model.setup_env_vars(model.__new__(model))
    names = {"rank": "RANK", "world_size": "WORLD_SIZE", "local_rank": "LOCAL_RANK"}
    return {part: int(os.environ[name]) for part, name in names.items()} | {"master": os.environ["MASTER_ADDR"]}


def ask_idr_torch(nodes: int, tasks_per_node: int) -> Answer:  # noqa: ARG001
    """The attributes of the module."""
    idr_torch = import_module("idr_torch")
    found = {part: getattr(idr_torch, part) for part in PARTS[:4]}
    return found | {"master": idr_torch.master_addr}


def ask_submitit(nodes: int, tasks_per_node: int) -> Answer:  # noqa: ARG001
    """Its helper for torch, as in a job that submitit sent."""
    os.environ["SUBMITIT_EXECUTOR"] = "slurm"
    told = import_module("submitit.helpers").TorchDistributedEnvironment()
    return {part: getattr(told, part) for part in PARTS[:4]} | {"master": told.master_addr}


def ask_accelerate(nodes: int, tasks_per_node: int) -> Answer:  # noqa: ARG001
    """Its state, which connects the ranks where it sees several."""
    state = import_module("accelerate").PartialState(cpu=True)
    found = {"rank": state.process_index, "world_size": state.num_processes, "local_rank": state.local_process_index}
    return found | {"master": os.environ.get("MASTER_ADDR")}


def ask_hpc(nodes: int, tasks_per_node: int) -> Answer:  # noqa: ARG001
    """`hpc world --json`; rank 0's host is asked for when the ranks meet, unless the launcher named it."""
    done = subprocess.run([sys.executable, "-m", "hpc", "world", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    world = json.loads(done.stdout)["world"]
    return {part: world[part] for part in PARTS[:4]} | {"master": world["master"] and world["master"][0]}


PEERS: dict[str, Callable[[int, int], Answer]] = {
    "hpc": ask_hpc,
    "Fabric": ask_fabric,
    "ignite": ask_ignite,
    "idr_torch": ask_idr_torch,
    "submitit": ask_submitit,
    "Accelerate": ask_accelerate,
}


def ask_all(nodes: int, tasks_per_node: int) -> dict[str, Answer]:
    """Every peer's answer, or {"error": the class of what it raised}, or {"error": "hangs"}."""
    for name in ("torch", "lightning_fabric", "ignite.distributed", "accelerate"):
        with contextlib.suppress(ImportError):  # then asking says so
            import_module(name)  # once, before the children are forked: most of the time goes there
    queues: dict[str, Queue[Answer]] = {name: Queue() for name in PEERS}
    children = [Process(target=_ask, args=(name, queues[name], nodes, tasks_per_node)) for name in PEERS]
    for child in children:
        child.start()
    deadline = time.monotonic() + HANG_SECONDS
    answers = {name: _await(queue, deadline) for name, queue in queues.items()}
    for child in children:
        child.kill()
        child.join()
    return answers


def _ask(name: str, queue: Queue[Answer], nodes: int, tasks_per_node: int) -> None:
    try:
        answer = PEERS[name](nodes, tasks_per_node)
    except BaseException as error:  # whatever a peer raises, SystemExit too, is its answer
        answer = {"error": type(error).__name__, "says": str(error)[:300]}
    queue.put(answer)


def _await(queue: Queue[Answer], deadline: float) -> Answer:
    try:
        return queue.get(timeout=max(0.1, deadline - time.monotonic()))
    except Empty:
        return {"error": "hangs"}


if __name__ == "__main__":
    found = {"host": socket.gethostname(), "answers": ask_all(int(sys.argv[2]), int(sys.argv[3]))}
    Path(sys.argv[1]).write_text(json.dumps(found))

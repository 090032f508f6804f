"""What each task runs: one life of one point, and the exit code it ends with."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpc.config import Settings
from hpc.errors import ConfigurationError, HpcError, NoProgressError
from hpc.files import replace_text
from hpc.run.journal import Journal
from hpc.run.points import Point, Sweep, load_sweep
from hpc.slurm.deadline import allocation_end
from hpc.stop.requests import stop_requests
from hpc.task import hydra_config
from hpc.world import Explanation, World, explain_world
from hpc.world.resolve import AUTO, SWITCH

FINISHED_FILE = "finished.json"


def run(sweep_directory: str, point: str) -> None:
    """The payload of every submitted job: one point of a sweep. Ends the process unless all is well."""
    _prepare_process()
    try:
        sweep = load_sweep(Path(sweep_directory))
        frozen = sweep.point(point)
        settings = frozen.settings
        world = _explained_world(settings).world
        check_world(settings, world, in_job=True)
    except HpcError as error:
        print(f"hpc: {error}", file=sys.stderr)
        _leave(error.exit_code)
    _leave(_guarded(sweep.point_directory(point), world, lambda: live(frozen, world)))


def run_here(point: Point) -> None:
    """Train in this process, as the rank the environment says it is.

    Args:
        point: The whole run; its run_dir becomes the point's directory.

    Raises:
        ConfigurationError: This is not the place for it, or the run directory belongs to another config.
        SystemExit: With the code of the run, unless it finished.
    """
    _prepare_process()
    settings = point.settings
    explanation = _explained_world(settings)
    world = explanation.world
    check_world(settings, world, in_job="SLURM_JOB_ID" in os.environ)
    if world.rank == 0:
        for warning in explanation.warnings:
            print(f"hpc: {warning}", file=sys.stderr)
    training_function(settings.experiment.target)  # what cannot be trained is refused before anything is written
    agreed = agree_on_point(point, world)
    _leave(_guarded(Path(agreed.settings.run_dir), world, lambda: live(agreed, world)))


def _prepare_process() -> None:
    """What must be in place before torch is imported."""
    stop_requests()  # a signal may come 3 s after the start
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else every rank warns of hosts without reverse DNS


def _explained_world(settings: Settings) -> Explanation:
    """The world by runtime.launcher; exported, because the Runtime and what the run starts ask the environment."""
    launcher = settings.runtime.launcher
    explanation = explain_world(os.environ, launcher)
    if launcher != AUTO:
        os.environ[SWITCH] = launcher
    return explanation


def live(point: Point, world: World) -> Any:
    """One life: call the training function, and mark the point finished when every rank has returned.

    Returns:
        What the training function returned, now or in an earlier life.
    """
    settings = point.settings
    directory = Path(settings.run_dir)
    finished = directory / FINISHED_FILE
    if finished.exists():
        value = json.loads(finished.read_text())["value"]
        _say(world, f"{directory} is finished: it returned {value}; choose another run_dir to train again.")
        return value
    _begin(directory, settings, world)
    hydra_config.restore(point.hydra)
    value = training_function(settings.experiment.target)(_as_config(point.config))
    _end(directory, world, value)
    return value


def check_world(settings: Settings, world: World, in_job: bool) -> None:
    """Compare the world that came up with the hardware that was asked for.

    Raises:
        ConfigurationError: They differ, or GPUs were asked for where no scheduler has given any.
    """
    hardware = settings.hardware
    alone = world.world_size == 1
    if alone and not in_job and (hardware.task_count > 1 or hardware.gpus_per_node):
        raise ConfigurationError(
            f"hardware={hardware.name} needs an allocation, and this process is not in one: "
            f"submit it with `python run.py -m hardware={hardware.name}`, or drop it to train on this machine."
        )
    if hardware.tasks_per_node is not None and world.world_size != hardware.task_count:
        raise ConfigurationError(
            f"hardware={hardware.name} must come up as {hardware.task_count} rank(s), but came up as "
            f"{world.world_size} (launcher: {world.source}): start it with "
            f"`srun --ntasks={hardware.task_count}`, or choose the hardware that is there."
        )


def agree_on_point(point: Point, world: World) -> Point:
    """Rank 0's point for all ranks, frozen in its run directory.

    Raises:
        ConfigurationError: The run directory belongs to another config, or cannot be written; on every rank.
    """
    if world.world_size == 1:
        return _freeze(point)
    from hpc.connect.process_group import (
        world_store,
    )  # deferred: it imports torch, and this is a login node's module

    options = point.settings.runtime
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.rank == 0:
        store.set("hpc/config", _freeze_or_explain(point))
    answer = json.loads(store.get("hpc/config"))
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    return Point.of_line(answer["point"])


def training_function(target: str) -> Callable[[Any], Any]:
    """Import `module.function`; an error inside the module is the user's own, and keeps its traceback.

    Raises:
        ConfigurationError: There is no such module or function.
    """
    module_name, _, name = target.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except (ModuleNotFoundError, ValueError) as error:
        if not module_name.startswith(getattr(error, "name", module_name)):
            raise
        function = None
    if not callable(function):
        raise ConfigurationError(
            f"experiment.target must be an importable module.function, but is {target}: "
            "correct it, or put its directory on PYTHONPATH."
        )
    result: Callable[[Any], Any] = function
    return result


def _freeze_or_explain(point: Point) -> str:
    try:
        return json.dumps({"point": _freeze(point).line()})
    except HpcError as error:
        return json.dumps({"error": str(error)})


def _freeze(point: Point) -> Point:
    Sweep(Path(point.settings.run_dir), (point,)).write_or_continue()
    return point


def _guarded(directory: Path, world: World, body: Callable[[], Any]) -> int:
    """Run one life and say how it ended; the first rank that fails writes down why, for all of them."""
    record = directory / "failures" / f"{_life(world)}.txt"
    stop_requests().on_sigterm = lambda: _leave_behind(record)
    try:
        body()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except HpcError as error:
        return _failed(record, world, f"hpc: {error}", error.exit_code)
    except BaseException:  # whatever it is, the job's exit code must say so
        return _failed(record, world, traceback.format_exc(), 1)
    return 0


def _life(world: World) -> str:
    """Names this life, alike on all ranks, and the way the batch script does."""
    process = os.getpid() if world.world_size == 1 else os.getppid()
    local, slurm = (os.environ.get(name) for name in ("SUBMITIT_LOCAL_JOB_ID", "SLURM_JOB_ID"))
    return f"{local or slurm or process}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _failed(record: Path, world: World, text: str, code: int) -> int:
    """The first to fail is the cause; what follows on other ranks is its echo."""
    print(text, file=sys.stderr, flush=True)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("x") as file:
            file.write(f"hpc: rank {world.rank} of {world.world_size} on {os.uname().nodename} failed first:\n{text}")
        Journal(record.parent.parent).write("failed", rank=world.rank, code=code)
    except OSError:  # somebody was first, or the disk is gone: the exit code remains
        pass
    return code


def _leave_behind(record: Path) -> None:
    """SIGTERM after another rank has failed is not a preemption: there is nobody left to save with."""
    if record.exists():
        os._exit(1)


def _leave(code: int) -> None:
    """End the process without touching the process group: after a failure, or when all have met, nothing may block."""
    if code == 0:
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _begin(directory: Path, settings: Settings, world: World) -> None:
    _log_to_files(directory, world)
    if world.rank == 0:
        _count_lives(directory, settings, world)
        end = allocation_end(os.environ)
        stop_requests().watch_clock(end, settings.cluster.grace_seconds)


def _count_lives(directory: Path, settings: Settings, world: World) -> None:
    journal = Journal(directory)
    lives, most = journal.lives_without_progress(), settings.runtime.max_lives_without_progress
    if lives >= most:
        raise NoProgressError(
            f"runtime.max_lives_without_progress is {most}, and {directory} has had {lives} lives without a new "
            "checkpoint: look at its journal.jsonl and failures/, then raise the limit to go on."
        )
    journal.write(
        "started", job=_life(world), source=world.source, world_size=world.world_size, hosts=list(world.hosts)
    )


def _end(directory: Path, world: World, value: Any) -> None:
    if world.world_size > 1:
        from hpc.connect.process_group import close_process_group, meet  # deferred: it imports torch

        meet()
        close_process_group()
    if world.rank == 0:
        number = value if isinstance(value, (int, float, str, bool)) else None
        replace_text(directory / FINISHED_FILE, json.dumps({"value": number}) + "\n")
        Journal(directory).write("finished", value=number)
        print(f"Finished. Checkpoints, metrics and logs: {directory}", flush=True)


def _log_to_files(directory: Path, world: World) -> None:
    """Everything logged, to a file per rank; to the screen from rank 0, and errors from any."""
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    logging.getLogger("submitit").propagate = False  # it has a handler of its own, on every rank's output
    file = logging.FileHandler(logs / f"rank_{world.rank}.log")
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO if world.rank == 0 else logging.ERROR)
    logging.basicConfig(
        level=logging.INFO,
        handlers=[file, screen],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )


def _as_config(config: Mapping[str, Any]) -> Any:
    from omegaconf import OmegaConf  # deferred: attribute access is all that is wanted of it

    return OmegaConf.create(dict(config))


def _say(world: World, text: str) -> None:
    if world.rank == 0:
        print(text, flush=True)

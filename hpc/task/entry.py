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

from hpc.config import Settings, settings_of
from hpc.errors import ConfigurationError, HpcError, NoProgressError, SaveError
from hpc.run.directory import RunDirectory
from hpc.run.events import Failed, Finished, Started
from hpc.run.journal import Journal
from hpc.run.lives import lives, lives_without_progress
from hpc.run.points import Point, Sweep, load_sweep
from hpc.run.result import kept, read_result, write_result
from hpc.slurm.deadline import allocation_end
from hpc.stop.requests import stop_requests
from hpc.world import Explanation, World, explain_world
from hpc.world.resolve import AUTO, SWITCH


def run(sweep_directory: str, point: str) -> None:
    """The payload of every submitted job: one point of a sweep. Ends the process unless all is well."""
    _prepare_process()
    try:
        sweep = load_sweep(Path(sweep_directory))
        config = sweep.point(point).config
        settings = settings_of(config)
        world = _explained_world(settings).world
        check_world(settings, world, in_job=True)
    except HpcError as error:
        print(f"hpc: {error}", file=sys.stderr)
        _leave(error.exit_code)
    _leave(_guarded(sweep.point_directory(point), world, lambda: live(config, world)))


def run_here(config: dict[str, Any]) -> None:
    """Train in this process, as the rank the environment says it is.

    Args:
        config: Resolved; its run_dir becomes the point.

    Raises:
        ConfigurationError: This is not the place for it, or the run directory belongs to another config.
        SystemExit: With the code of the run, unless it finished.
    """
    _prepare_process()
    settings = settings_of(config)
    explanation = _explained_world(settings)
    world = explanation.world
    check_world(settings, world, in_job="SLURM_JOB_ID" in os.environ)
    if world.rank == 0:
        for warning in explanation.warnings:
            print(f"hpc: {warning}", file=sys.stderr)
    config = agree_on_config(config, settings, world)
    directory = Path(config["run_dir"])
    _leave(_guarded(directory, world, lambda: live(config, world)))


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


def live(config: Mapping[str, Any], world: World) -> Any:
    """One life: call the training function, and mark the point finished when every rank has returned.

    Returns:
        What the training function returned, now or in an earlier life.
    """
    settings = settings_of(dict(config))
    directory = Path(settings.run_dir)
    result = read_result(directory)
    if result is not None:
        _say(world, f"{directory} is finished: it returned {result.value}; choose another run_dir to train again.")
        return result.value
    _begin(directory, settings, world)
    value = training_function(settings.experiment.target)(_as_config(config))
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


def agree_on_config(config: dict[str, Any], settings: Settings, world: World) -> dict[str, Any]:
    """Rank 0's config for all ranks, frozen in its run directory.

    Raises:
        ConfigurationError: The run directory belongs to another config, or cannot be written; on every rank.
    """
    if world.world_size == 1:
        return _freeze(config)
    from hpc.connect.process_group import (
        world_store,
    )  # deferred: it imports torch, and this is a login node's module

    options = settings.runtime
    store = world_store(world, options.rendezvous_timeout_seconds, options.interface, options.host_suffix)
    if world.rank == 0:
        store.set("hpc/config", json.dumps(_freeze_or_explain(config)))
    answer = json.loads(store.get("hpc/config"))
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    agreed: dict[str, Any] = answer["config"]
    return agreed


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


def _freeze_or_explain(config: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"config": _freeze(config)}
    except ConfigurationError as error:
        return {"error": str(error)}


def _freeze(config: dict[str, Any]) -> dict[str, Any]:
    directory = Path(config["run_dir"]).absolute()
    frozen = {**config, "run_dir": str(directory)}
    Sweep(directory, (Point(".", (), frozen),)).write_or_continue()
    return frozen


def _guarded(directory: Path, world: World, body: Callable[[], Any]) -> int:
    """Run one life and say how it ended; the first rank that fails writes down why, for all of them."""
    record = RunDirectory(directory).failure(_life(world))
    stop_requests().on_sigterm = lambda: _leave_behind(record)
    journal = Journal(directory, _life(world), world.rank)
    try:
        body()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except HpcError as error:
        return _failed(record, journal, world, f"hpc: {error}", error.exit_code)
    except BaseException:  # whatever it is, the job's exit code must say so
        return _failed(record, journal, world, traceback.format_exc(), 1)
    return 0


def _life(world: World) -> str:
    """Names this life, alike on all ranks, and the way the batch script does."""
    process = os.getpid() if world.world_size == 1 else os.getppid()
    local, slurm = (os.environ.get(name) for name in ("SUBMITIT_LOCAL_JOB_ID", "SLURM_JOB_ID"))
    return f"{local or slurm or process}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _failed(record: Path, journal: Journal, world: World, text: str, code: int) -> int:
    """The first to fail is the cause; what follows on other ranks is its echo."""
    print(text, file=sys.stderr, flush=True)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with record.open("x") as file:
            file.write(f"hpc: rank {world.rank} of {world.world_size} on {os.uname().nodename} failed first:\n{text}")
        journal.write(Failed(world.rank, code, text.strip().splitlines()[-1]))
    except (OSError, SaveError):  # somebody was first, or the disk is gone: the exit code remains
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
    journal, most = Journal(directory, _life(world)), settings.runtime.max_lives_without_progress
    count = len(lives_without_progress(lives(journal.events())))
    if count >= most:
        raise NoProgressError(
            f"runtime.max_lives_without_progress is {most}, and {directory} has had {count} lives without a new "
            "checkpoint: look at its journal/ and failures/, then raise the limit to go on."
        )
    journal.write(Started(world.source, world.world_size, world.hosts))


def _end(directory: Path, world: World, value: Any) -> None:
    if world.world_size > 1:
        from hpc.connect.process_group import close_process_group, meet  # deferred: it imports torch

        meet()
        close_process_group()
    if world.rank == 0:
        result = _kept(value)
        write_result(directory, result)
        Journal(directory, _life(world)).write(Finished(result))
        print(f"Finished. Checkpoints, metrics and logs: {directory}", flush=True)


def _kept(value: Any) -> Any:
    try:
        return kept(value)
    except TypeError as error:
        print(f"hpc: The training function returned a {type(value).__name__}, which is not kept: {error}.")
        return None


def _log_to_files(directory: Path, world: World) -> None:
    """Everything logged, to a file per rank; to the screen from rank 0, and errors from any."""
    log = RunDirectory(directory).log(world.rank)
    log.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("submitit").propagate = False  # it has a handler of its own, on every rank's output
    file = logging.FileHandler(log)
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

"""What each task runs: one attempt of one point, from its frozen config to its result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpc.attempt.attempt import Agree, Attempt, begin, explain_process, prepare_process, process_secret
from hpc.attempt.life import start
from hpc.config import Settings, as_config, leaves
from hpc.config.secrets import MASK
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, HpcError, LoadError
from hpc.run.events import Finished
from hpc.run.ownership import check_ownership
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.result import Result, read_result, write_result
from hpc.run.secret import Secret
from hpc.run.stored import open_sweep
from hpc.run.vault import SECRETS_FILE, Vault
from hpc.say import fail, phase, say, set_up, warn
from hpc.task import hydra_config
from hpc.task.guard import guarded, leave
from hpc.task.imports import around_import, uncollected
from hpc.task.outside import warn_of_code_outside
from hpc.task.target import training_function
from hpc.task.value import as_json
from hpc.world import World


def run(sweep_directory: str, point: str) -> None:
    """The payload of every submitted job: one point of a sweep. Ends the process unless all is well."""
    prepare_process(process_environ())
    around_import("torch", uncollected())
    try:
        sweep = open_sweep(Path(sweep_directory))
        frozen = sweep.named(point)
        check_secrets(frozen)
        settings = frozen.settings
        world = explain_process(settings.runtime.launcher).world
        set_up(world.rank)
        check_world(settings, world, in_job=True)
        check_ownership(sweep.directory / point, settings.cluster.run_dir_writers)
        secret = process_secret(world, sweep.directory)
        agree = _agree(settings, world, secret)
        attempt = begin(world, secret, sweep.directory / point, agree, process_environ())
    except HpcError as error:
        fail(error)
        leave(error.exit_code)
    leave(guarded(attempt, lambda: live(frozen, attempt, agree)))


def run_here(point: Point) -> None:
    """Train in this process, as the rank the environment says it is.

    Args:
        point: The whole run; its run_dir becomes the point's directory.

    Raises:
        ConfigurationError: This is not the place for it, or the run directory belongs to another config.
        SystemExit: With the code of the run, unless it finished.
    """
    from hpc.submit.container import check_no_container  # deferred: a job does without it

    prepare_process(process_environ())
    around_import("torch", uncollected())
    settings = point.settings
    check_no_container(settings)
    explanation = explain_process(settings.runtime.launcher)
    world = explanation.world
    set_up(world.rank)
    check_world(settings, world, in_job="SLURM_JOB_ID" in explanation.variables)
    for warning in explanation.warnings:
        warn(warning)
    training_function(settings.experiment.target)  # what cannot be trained is refused before anything is written
    secret = process_secret(world)
    agree = _agree(settings, world, secret)
    agreed = agree_on_point(point, agree, world)
    attempt = begin(world, secret, Path(agreed.settings.run_dir), agree, process_environ())
    leave(guarded(attempt, lambda: live(agreed, attempt, agree)))


def live(point: Point, attempt: Attempt, agree: Agree) -> Any:
    """One life: call the training function, and mark the point finished when every rank has returned.

    Returns:
        What the training function returned, now or in an earlier life.
    """
    result = _finished(attempt, agree)
    if result is not None:
        say(f"{attempt.directory} is finished: it returned {result.value}; choose another run_dir to train again.")
        return result.value
    start(attempt, point.settings)
    hydra_config.restore(point.hydra)
    train = training_function(point.settings.experiment.target)
    warn_of_code_outside()
    value = train(as_config(point.config))
    _end(attempt, value)
    return value


def _finished(attempt: Attempt, agree: Agree) -> Result | None:
    """Rank 0's answer for all ranks: one that begins later must not find what rank 0 of this very life has written.

    Raises:
        LoadError: finished.json is there and cannot be read; on every rank.
    """
    world = attempt.world
    if world.world_size == 1:
        return read_result(attempt.directory)
    answer = json.loads(agree("hpc/finished", _result_or_error(attempt.directory) if world.rank == 0 else ""))
    if "error" in answer:
        raise LoadError(answer["error"])
    return Result(answer["value"]) if "value" in answer else None


def _result_or_error(directory: Path) -> str:
    try:
        result = read_result(directory)
    except LoadError as error:
        return json.dumps({"error": str(error)})
    return json.dumps({} if result is None else {"value": result.value})


def check_secrets(point: Point) -> None:
    """See whether secrets.json could be read.

    Raises:
        LoadError: It could not, and the training function would get `***` for a password.
    """
    missing = [key for key, value in leaves(point.config) if value == MASK]
    if missing:
        raise LoadError(
            f"{SECRETS_FILE} must be readable to train, but is not, and {missing[0]} is in it: "
            "restore it, or submit again into another run_dir."
        )


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


def agree_on_point(point: Point, agree: Agree, world: World) -> Point:
    """Rank 0's point for all ranks, frozen in its run directory.

    Raises:
        ConfigurationError: The run directory belongs to another config, or cannot be written; on every rank.
    """
    if world.world_size == 1:
        return _freeze(point)
    answer = json.loads(agree("hpc/config", _freeze_or_explain(point) if world.rank == 0 else ""))
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    return Point.of_line(answer["point"]).filled_in(point)


def _agree(settings: Settings, world: World, secret: Secret) -> Agree:
    def agree(key: str, proposal: str) -> str:
        with phase("Importing torch, and connecting to the other ranks"):
            # deferred: it imports torch, and login nodes import this module
            from hpc.connect.process_group import told_by_rank_0

            return told_by_rank_0(world, secret, settings.runtime, key, proposal)

    return agree


def _freeze_or_explain(point: Point) -> str:
    try:
        return json.dumps({"point": _freeze(point).hidden(Vault()).line()})  # others may listen: no secrets
    except HpcError as error:
        return json.dumps({"error": str(error)})


def _freeze(point: Point) -> Point:
    Sweep(Path(point.settings.run_dir), (point,)).write_or_continue()
    return point


def _end(attempt: Attempt, value: Any) -> None:
    if attempt.world.world_size > 1:
        from hpc.connect.process_group import close_process_group, meet  # deferred: it imports torch

        meet()
        close_process_group()
    if attempt.world.rank == 0:
        result = _kept(value)
        write_result(attempt.directory, result)
        attempt.journal.write(Finished(result))
        say(f"Finished. Checkpoints, metrics and logs: {attempt.directory}")


def _kept(value: Any) -> Any:
    try:
        return as_json(value)
    except TypeError as error:
        warn(str(error))
        return None

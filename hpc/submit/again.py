"""Sends some points of a sweep that exists already once more, perhaps with more memory or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc.config import as_config, sentence
from hpc.config.secrets import check_visible
from hpc.environ import process_environ
from hpc.errors import ConfigurationError, SlurmError, SubmissionError
from hpc.run.calls import Turn
from hpc.run.directory import not_writable
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.submit.options import check_options
from hpc.submit.plan import Plan, asked_clusters, most_at_once
from hpc.submit.send import agreed_plans, announce, send_each
from hpc.submit.srun import check_srun
from hpc.submit.throttle import arrays_in_queue, beside

CHANGEABLE = ("hardware", "cluster", "launch")
"""How much, where and how it is sent; what else changes makes another run."""


def send_again(
    sweep: Sweep,
    names: Collection[str],
    scheduler_of: Callable[[Point], str],
    write: Callable[[], object],
    turn: Turn,
) -> None:
    """One sbatch call for each group of these points that asks for the same.

    Args:
        sweep: As it is to be.
        names: Of the points. None of them may be in the queue.
        scheduler_of: Whether a point goes to slurm; the others are not sent.
        write: Called once all plans are known to fit, and before any of them is sent.
        turn: Begun before it was looked where the points stand.

    Raises:
        SubmissionError: A plan cannot start, or sbatch refused it; those before it are sent, and are announced.
    """
    part, sent = part_of(sweep, names), list[tuple[Plan, str]]()
    try:
        with turn.taken():
            plans = beside_others(agreed_plans(part, scheduler_of), part.points)
            write()
            send_each(plans, sent)
    except OSError as error:
        raise not_writable(sweep.directory, error) from error
    finally:
        if sent:
            announce(sweep, sent)


def beside_others(plans: list[Plan], points: Sequence[Point]) -> list[Plan]:
    """The plans with their share of what may run at once; see `hpc.submit.throttle`.

    Raises:
        SubmissionError: Slurm does not say what is in its queue.
        OSError: The sweep's record cannot be read.
    """
    environ = process_environ()
    try:
        arrays = arrays_in_queue(plans[0].sweep_directory, environ, asked_clusters(plans[0], environ))
    except SlurmError as error:
        raise SubmissionError(
            f"Slurm must say what of the sweep is in its queue, but does not: {' '.join(str(error).split())}."
        ) from error
    return beside(plans, arrays, max(1, most_at_once(points) // plans[0].per_job))


def part_of(sweep: Sweep, names: Collection[str]) -> Sweep:
    """The sweep with these points only, in their order."""
    return replace(sweep, points=tuple(point for point in sweep.points if point.name in names))


def changed(sweep: Sweep, names: Collection[str], changes: Sequence[str]) -> Sweep:
    """The sweep with some settings of some points changed. Nothing is written: see `Sweep.write_or_continue`.

    Args:
        sweep: As it was frozen.
        names: Of the points.
        changes: As hardware.memory_gb=64.

    Raises:
        ConfigurationError: A change is none, is of another section, or is not valid.
    """
    pairs = [_checked(change) for change in changes]
    points = (_changed(point, pairs) if point.name in names else point for point in sweep.points)
    return replace(sweep, points=tuple(points))


def _checked(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    section, _, rest = key.partition(".")
    if not equals or not rest or section not in CHANGEABLE:
        raise ConfigurationError(
            f"--set must be a setting of {', '.join(CHANGEABLE)}, as hardware.memory_gb=64, but is {change}."
        )
    return key, value


def _changed(point: Point, pairs: Sequence[tuple[str, str]]) -> Point:
    """Checked as when it was frozen. The overrides tell of the change, so that it is seen."""
    config = as_config(point.config)
    try:
        for key, value in pairs:
            OmegaConf.update(config, key, _parsed(f"{key}={value}", key), force_add=True)
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(sentence(error)) from error
    keys = {key for key, _ in pairs}
    kept = [each for each in point.overrides if each.partition("=")[0].lstrip("+") not in keys]
    new = replace(point, config=plain, overrides=(*kept, *(f"{key}={value}" for key, value in pairs)))
    check_options(new.settings.cluster)
    check_srun(new.settings)
    check_visible(new.config, new.secrets)
    return new


def _parsed(text: str, key: str) -> Any:
    return OmegaConf.select(OmegaConf.from_dotlist([text]), key)

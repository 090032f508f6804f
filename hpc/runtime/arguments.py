"""What a user hands to the Runtime: taken as it is meant, or refused by a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hpc.errors import ConfigurationError
from hpc.run.directory import TAKEN_NAMES


def whole_number(total: Any, what: str) -> int:
    """The total as an integer.

    Raises:
        ConfigurationError: It is no whole number, or negative.
    """
    try:
        number = int(total)
        is_whole = bool(number == total) and number >= 0 and not isinstance(total, (bool, str))
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise ConfigurationError(
            f"total must be a whole number of {what}, but is {total!r}: round it where it is computed, as with "
            "math.ceil or //."
        )
    return number


def clipping(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, float]:
    """Parameters and largest norm, in torch's order or the norm alone.

    Raises:
        ConfigurationError: They are neither.
    """
    if len(arguments) == 1 and not named and isinstance(arguments[0], (int, float)):
        return None, float(arguments[0])  # the usual call, which every step makes
    names: tuple[str, ...] = ("max_norm",) if len(arguments) == 1 else ("parameters", "max_norm", "norm_type")
    if len(arguments) == 2 and isinstance(arguments[0], (int, float)):
        names = ("max_norm", "parameters")
    given = {**dict(zip(names, arguments, strict=False)), **named}
    is_known = len(arguments) <= len(names) and given.keys() <= {"parameters", "max_norm", "norm_type"}
    if not is_known or not _is_number(given.get("max_norm")):
        raise ConfigurationError(
            "clip_grad_norm_ takes max_norm, or parameters and max_norm, but got "
            f"{', '.join(given) or 'nothing'}: write runtime.clip_grad_norm_(1.0)."
        )
    if float(given.get("norm_type", 2)) != 2.0:
        raise ConfigurationError(
            f"clip_grad_norm_ must have norm_type=2, the only norm that all strategies compute alike, but got "
            f"{given['norm_type']}."
        )
    parameters = given.get("parameters")
    if isinstance(parameters, torch.Tensor):
        parameters = [parameters]
    return None if parameters is None else list(parameters), float(given["max_norm"])


def clip_limit(value: Any) -> float:
    """The largest absolute value of a gradient's element.

    Raises:
        ConfigurationError: It is no number, or negative.
    """
    if not _is_number(value) or not float(value) >= 0:
        raise ConfigurationError(
            f"clip_grad_value_ takes parameters and a number that is not negative, but got {value!r}: write "
            "runtime.clip_grad_value_(model.parameters(), 1.0)."
        )
    return float(value)


def directory_name(name: str) -> str:
    """A name that can be that of a directory below run_dir; empty for run_dir itself.

    Raises:
        ConfigurationError: It cannot.
    """
    if name != Path(name).name or name in TAKEN_NAMES:
        raise ConfigurationError(
            f"name must be that of a new directory below run_dir, without a slash, but is {name!r}: fold_0 will do."
        )
    return name


def check_stateful(name: str, thing: Any) -> None:
    """Refuse what has no state dict that could be saved and given back.

    Raises:
        ConfigurationError: It has none.
    """
    has_both = all(callable(getattr(thing, each, None)) for each in ("state_dict", "load_state_dict"))
    if isinstance(thing, type) or not has_both:
        what = f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
        raise ConfigurationError(
            "runtime.register takes an object that has the methods state_dict and load_state_dict, but "
            f"{name} is {what}: put it into an object that has both."
        )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True

"""What may an option be? Said beside the option itself: `field(default=1, metadata=at_least(1))`.

Limits of one option are joined with `|`.
"""

from __future__ import annotations

import math
from dataclasses import Field, fields, is_dataclass
from typing import Any

Limits = dict[str, Any]
CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))))
"""Characters that no name has, and that break the lines of a batch script: control characters, Unicode's separators of
lines and paragraphs, and what stands for bytes that are no text."""


def at_least(least: int) -> Limits:
    """A number that is not smaller; null where the option may be null."""
    return {"least": least}


def at_most(most: int) -> Limits:
    """A number that is not larger; null where the option may be null."""
    return {"most": most}


def above(bound: float) -> Limits:
    """A finite number that is greater; null where the option may be null."""
    return {"above": bound}


def one_of(*choices: str | int | bool | None) -> Limits:
    """One of these."""
    return {"choices": choices}


def only_of(strategy: str) -> Limits:
    """The default, unless this strategy is chosen: the others would ignore the option."""
    return {"strategy": strategy}


def without(characters: str) -> Limits:
    """A text without any of these characters, and not an empty one. Control characters are refused everywhere."""
    return {"without": characters}


def names_a_file() -> Limits:
    """The path of a JSON file, whose content is kept with the submission; null where the option may be null."""
    return {"file": True}


def broken(options: Any, prefix: str = "") -> str:
    """The sentence about the first option that is out of its limits, or "".

    Args:
        options: A dataclass of the schema, sections inside sections included.
        prefix: What stands before the names of its options: `hardware.`.
    """
    for option in fields(options):
        value, key = getattr(options, option.name), f"{prefix}{option.name}"
        wrong = _broken_sections(key, value) or _broken_option(key, option, value)
        if wrong:
            return wrong
    return ""


def _broken_sections(key: str, value: Any) -> str:
    """Of a section, or of those that a list or a mapping holds."""
    if is_dataclass(value):
        return broken(value, f"{key}.")
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    wrong = (broken(each, f"{key}.{name}.") for name, each in pairs if is_dataclass(each))
    return next(filter(None, wrong), "")


def choices(options: Any, name: str) -> tuple[str | int | bool | None, ...]:
    """What an option of a section may be, as `one_of` says it."""
    (option,) = (each for each in fields(options) if each.name == name)
    allowed: tuple[str | int | bool | None, ...] = option.metadata["choices"]
    return allowed


def typed(value: object) -> str:
    """A value as a person types it in an override or a YAML file."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _broken_option(key: str, option: Field[Any], value: Any) -> str:
    allowed = option.metadata.get("choices")
    if allowed is not None and value not in allowed:
        return f"{key} must be one of {', '.join(map(typed, allowed))}, but is {typed(value)}."
    if isinstance(value, str):
        return _broken_text(key, value, option.metadata.get("without"))
    return "" if value is None else _broken_number(key, option, value)


def _broken_text(key: str, value: str, forbidden: str | None) -> str:
    if not CONTROL.isdisjoint(value):
        return f"{key} must be one line without control characters, but is {value!r}."
    if forbidden is not None and not value.strip():
        return f"{key} must be a name, but is empty."
    if forbidden and not set(forbidden).isdisjoint(value):
        return f"{key} must be a name without any of {' '.join(forbidden)} in it, but is {value}."
    return ""


def _broken_number(key: str, option: Field[Any], value: Any) -> str:
    least, most, bound = (option.metadata.get(limit) for limit in ("least", "most", "above"))
    if least is not None and value < least:
        return f"{key} must be at least {least}, but is {value}."
    if most is not None and value > most:
        return f"{key} must be at most {most}, but is {value}."
    if bound is not None and not bound < value < math.inf:
        return f"{key} must be above {bound:g}, but is {value:g}."
    return ""

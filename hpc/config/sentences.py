"""How does what OmegaConf, Hydra and YAML say in several lines become one sentence: the setting, and what it may be?"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    KeyValidationError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)
from yaml import YAMLError

from hpc.config.limits import typed
from hpc.config.schema import Settings
from hpc.config.secrets import is_private_key, masked_override

IN_FILE = re.compile(r"In '([^']+)'")
SEE = re.compile(r"(See https?://\S+|Set the environment variable HYDRA_FULL_ERROR).*")
NO_NEWS = ("Error parsing override", "Error when parsing index")
MERGED = re.compile(r"(?:Merge error|Invalid type assigned): \w+ is not a subclass of (\w+)\. value: (.*)", re.DOTALL)
TYPES = (
    (re.compile(r"Value '(.*)' of type '\w+' could not be converted to Integer", re.DOTALL), "a whole number"),
    (re.compile(r"Value '(.*)' of type '\w+' could not be converted to Float", re.DOTALL), "a number"),
    (re.compile(r"Value '(.*)' is not a valid bool \(type \w+\)", re.DOTALL), "true or false"),
    (re.compile(r"Cannot convert '\w+' to string: '(.*)'", re.DOTALL), "a text"),
    (re.compile(r"Incompatible value '(None)' for field of type '\w+'"), "given"),
    (re.compile(r"field '.*' is not (Optional)"), "given"),
)
"""What OmegaConf says of a value, and what the option must be."""
OMEGACONF_DETAILS = ("full_key:", "object_type=", "reference_type=", "Environment variable")


def sentence(error: BaseException) -> str:
    """One sentence of an error, ending in a full stop, with the file it is about where one can be told."""
    told = next((each for each in _chain(error) if isinstance(each, (OmegaConfBaseException, YAMLError))), error)
    readers = (_of_hydra, _of_group, _of_merge, _of_omegaconf, _of_yaml, _of_any)
    text = next(filter(None, (reader(told) for reader in readers)))
    place = IN_FILE.match(str(error)) if told is not error else None
    known = f" (in {place.group(1)})" if place and place.group(1) not in text else ""
    return f"{text.rstrip('.')}{known}."


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it came from: the first of them that OmegaConf or YAML has raised knows the setting."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found


def _of_hydra(error: BaseException) -> str:
    """Hydra's, which is not imported for a message's sake: a preset that is not there, an override like `a=[1,`."""
    missing, options, override = (getattr(error, name, None) for name in ("missing_cfg_file", "options", "override"))
    if missing and options:
        group, _, name = missing.rpartition("/")
        return f"{group} must be one of {', '.join(options)}, but is {name}"
    if isinstance(override, str):
        shown = masked_override(override)
        return f"{shown!r} cannot be read as an override: {_place(override, _lines(error))}"
    return ""


def _of_group(error: BaseException) -> str:
    """A choice from a group that is no name: Hydra says so without the group, which its frame knows."""
    frames = [frame for frame, _ in traceback.walk_tb(_trace(error))]
    override = frames[-1].f_locals.get("override") if frames and isinstance(error, ValueError) else None
    if override is None or not hasattr(override, "key_or_group"):
        return ""
    told = typed(override.value())
    return f"{override.key_or_group} must be the name of a preset, in quotes where it is a number, but is {told}"


def _place(override: str, lines: list[str]) -> str:
    """Where Hydra's parser stumbled; it marks the place with a caret in a line of its own, or names it."""
    raw = str(lines[-1]) if lines else ""
    if raw.strip() == "^":
        column = len(raw) - 1 - len("LexerNoViableAltException: ")
        return f"the character {override[column : column + 1]!r} at place {column + 1} is not expected"
    return "; ".join(line.strip().rstrip(".") for line in lines if not line.startswith(NO_NEWS))


def _of_omegaconf(error: BaseException) -> str:
    key, section = getattr(error, "full_key", None), getattr(error, "parent_node", None)
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)) and key and section:
        where = str(key).rpartition(".")[0] or "the config"
        return f"{key} is no setting: {where} has {', '.join(map(str, section))}"
    if isinstance(error, UnsupportedInterpolationType):
        return f"{_first(error)} (at {key}): register that resolver in the module of experiment.target"
    if not isinstance(error, OmegaConfBaseException):
        return ""
    if key and is_private_key(str(key)) and not isinstance(error, KeyValidationError):
        return f"{key} must be a text or a number, but is not"
    text, file = _first(error), _file(error)
    merged = MERGED.fullmatch(text)
    if merged and (merged[1] in SECTIONS or key):
        return f"{SECTIONS.get(merged[1], key)} must be a mapping of its settings, but is {merged[2]}"
    text = _of_type(key, text) or text
    known = f" (at {key})" if key and not re.search(rf"(?<!\w){re.escape(str(key))}(?!\w)", text) else ""
    return f"{text}{known} (in {file})" if file else f"{text}{known}"


def _of_type(key: str | None, text: str) -> str:
    """What a setting must be, where OmegaConf says what its value cannot be made."""
    for pattern, must_be in TYPES if key else ():
        found = pattern.fullmatch(text)
        if found:
            kind = "a mapping of its settings" if key in SECTIONS.values() else must_be
            return f"{key} must be {kind}, but is {'null' if found[1] in ('None', 'Optional') else found[1]}"
    return ""


def _of_merge(error: BaseException) -> str:
    """A list where a mapping belongs, or the other way round: OmegaConf says so without the setting."""
    if not isinstance(error, OmegaConfBaseException) or not str(error).startswith("Cannot merge"):
        return ""
    frames = [frame for each in _chain(error) for frame, _ in traceback.walk_tb(_trace(each))]
    sections = [frame.f_locals["self"] for frame in frames if frame.f_code.co_name == "_merge_with"]
    if not sections:
        return ""
    must_be, is_one = ("a list", "a mapping") if OmegaConf.is_list(sections[-1]) else ("a mapping", "a list")
    return f"{sections[-1]._get_full_key(None)} must be {must_be}, but is {is_one}"


def _sections(options: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Where each class of the schema stands in a config."""
    for option in fields(options):
        if is_dataclass(option.default_factory):
            yield option.default_factory.__name__, f"{prefix}{option.name}"
            yield from _sections(option.default_factory, f"{prefix}{option.name}.")


SECTIONS = {"HydraConf": "hydra", **dict(_sections(Settings))}


def _of_yaml(error: BaseException) -> str:
    if not isinstance(error, YAMLError):
        return ""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or _first(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else f"position {getattr(error, 'position', 0)}"
    return f"{_file(error) or getattr(mark, 'name', 'A file')} must be YAML, but is not at {where}: {problem}"


def _of_any(error: BaseException) -> str:
    """The first line, with what caused it where Hydra says no more than that something failed."""
    file, text = _file(error), _first(error)
    if isinstance(error, RecursionError):
        text = "the config refers to itself, in a defaults list or by an anchor"
    if isinstance(error, (AssertionError, AttributeError)):  # as for `hydra: 5`, and `hydra: null`
        text = f"the config is of another shape than Hydra takes, whose code says `{_failed(error)}`"
    if file and file not in text:
        return f"{file} cannot be read: {text}"
    cause = error.__cause__
    return f"{text.rstrip('.:')}: {_first(cause)}" if cause is not None and _first(cause) not in text else text


def _failed(error: BaseException) -> str | None:
    """The line of Hydra's own code that did not work."""
    lines = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_hydra = [line for line, frame in zip(lines, frames, strict=True) if frame.f_globals["__name__"][:6] == "hydra."]
    return (of_hydra or lines)[-1].line


def _first(error: BaseException) -> str:
    """What the error says in one line: Hydra's second line is its telling one where the first ends in a colon."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [line.strip() for line in _lines(error)]
    text = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [type(error).__name__])[0]
    return text.rstrip(".")


def _lines(error: BaseException) -> list[str]:
    lines = (SEE.sub("", line) for line in str(error).splitlines())
    return [line for line in lines if line.strip() and not line.strip().startswith(OMEGACONF_DETAILS)]


def _file(error: BaseException) -> str:
    """The YAML file or config that Hydra was reading when it failed: its readers keep the name, its errors do not."""
    for each in (error, error.__context__):
        frames = [frame for frame, _ in traceback.walk_tb(_trace(each)) if frame.f_code.co_name == "load_config"]
        names = [frame.f_locals.get("full_path") or frame.f_locals.get("config_path") for frame in frames]
        known: list[str] = [name for name in names if isinstance(name, str)]
        if known:
            return known[-1]
    return ""


def _trace(error: BaseException | None) -> TracebackType | None:
    return error.__traceback__ if error is not None else None

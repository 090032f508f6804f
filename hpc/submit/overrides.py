"""What does one override do: choose from a group, set a value, or something that only Hydra itself may judge?

Hydra's parser takes a third of a millisecond for a line. Each line is read once, and lines that differ in a number
only are read as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import split_key

NUMBER = re.compile(r"(?P<int>[+-]?(?:0|[1-9][0-9]*))(?P<float>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
"""The plainest of Hydra's numbers; what else is one goes through its parser."""
SETS = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)


class Kind(Enum):
    """Where in composing an override counts."""

    CHOICE = "choice"
    """Which files are composed."""
    VALUE = "value"
    """What is set in the result, after all files."""
    OTHER = "other"
    """Hydra's own settings, or what we do not know to be one of the others."""


@dataclass(frozen=True)
class Line:
    """One override, read.

    Args:
        text: As typed.
        override: As Hydra reads it.
        kind: What it does.
        path: Names from the top of the config down to the setting; of values only.
    """

    text: str
    override: Override
    kind: Kind
    path: tuple[str, ...]

    @cached_property
    def stem(self) -> str:
        """All of it but the value: `seed=`, `+a.b=`."""
        return self.text[: self.text.find("=") + 1]

    @cached_property
    def is_scalar(self) -> bool:
        """Whether it sets one setting to one value that stands for itself."""
        value: Any = self.override.value()
        if self.kind is not Kind.VALUE or self.override.type not in SETS or not self.stem:
            return False
        return value is None or isinstance(value, (int, float)) or _stands_for_itself(value)

    @cached_property
    def again(self) -> Override:
        """What sets the value once more, where the setting has been added already."""
        if self.override.type is OverrideType.ADD:
            return replace(self.override, type=OverrideType.FORCE_ADD)
        return self.override


class Reader:
    """Reads overrides as the loader of a config does.

    Args:
        loader: Hydra's ConfigLoaderImpl.
        master: The config of the whole sweep; says where groups are looked for.
    """

    def __init__(self, loader: Any, master: DictConfig) -> None:
        name = master.hydra.job.config_name
        of_hydra = OmegaConf.to_container(master.hydra.overrides.hydra)
        _, self._groups = loader._parse_overrides_and_create_caching_repo(name, of_hydra)
        self._parser = OverridesParser.create()
        self._lines: dict[str, Line] = {}
        self._numbers: dict[str, Line] = {}

    def line(self, text: str) -> Line:
        """One override, read.

        Raises:
            HydraException: It cannot be read.
        """
        known = self._lines.get(text)
        if known is None:
            known = self._lines[text] = self._read(text)
        return known

    def _read(self, text: str) -> Line:
        stem, equal, value = text.partition("=")
        number = NUMBER.fullmatch(value) if equal else None
        if number is None:
            return self._parsed(text)
        sample = self._numbers.get(stem)
        if sample is None:
            sample = self._numbers[stem] = self._parsed(text)
        parsed = float(value) if number["float"] else int(value)
        return replace(sample, text=text, override=replace(sample.override, _value=parsed, input_line=text))

    def _parsed(self, text: str) -> Line:
        override = self._parser.parse_override(text)
        kind = self._kind(override)
        return Line(text, override, kind, tuple(split_key(override.key_or_group)) if kind is Kind.VALUE else ())

    def _kind(self, override: Override) -> Kind:
        key = override.key_or_group
        is_path = getattr(override, "is_value_path", False)  # since Hydra 1.4
        if override.is_sweep_override() or override.is_hydra_override() or is_path:
            return Kind.OTHER
        if override.type not in (*SETS, OverrideType.DEL) or split_key(key)[:1] == ["hydra"]:
            return Kind.OTHER
        if self._groups.group_exists(key):
            return Kind.OTHER if isinstance(override.value(), dict) else Kind.CHOICE
        is_value = override.package is None and not self._groups.config_exists(key)
        return Kind.VALUE if is_value else Kind.OTHER


def _stands_for_itself(value: Any) -> bool:
    return isinstance(value, str) and "${" not in value and value != "???"

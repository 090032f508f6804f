"""How are the points of a sweep composed, without reading all files again for each?

Hydra composes the files that the choices of groups name, and then sets values in the result (`ConfigLoaderImpl`, Hydra
1.3 and 1.4). So a point may go three ways, and each gives what Hydra gives:

    by value   as another one with the same choices, and the same settings set to other values: see `hpc.submit.family`
    by choice  as a copy of what its choices compose, in which Hydra's own function sets the values
    by Hydra   from all files, as every point used to; whatever the other two do not know for sure goes this way

The first point goes both by Hydra and by choice. Should the results differ, as they may with a later version of Hydra,
all points are left to it.
"""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from hpc.submit.family import Family, Identity, Parts, are_apart, is_free
from hpc.submit.overrides import Kind, Line, Reader
from hpc.submit.resolve import known_to_hydra, resolved, set_run_directory

KEPT = 128
"""So many composed configs are kept; each takes about half a megabyte."""


class Composer:
    """Composes the points of one sweep, in their order.

    Args:
        loader: Hydra's ConfigLoaderImpl.
        master: The config of the whole sweep.
        directory: The sweep's; a point's is named by its number, below it.
    """

    def __init__(self, loader: Any, master: DictConfig, directory: Path) -> None:
        self._loader, self._master, self._directory = loader, master, directory
        self._apply = getattr(loader, "_apply_overrides_to_config", None)
        self._reader = _reader(loader, master) if self._apply is not None else None
        self._bases: OrderedDict[Any, DictConfig | None] = OrderedDict()
        self._families: OrderedDict[Any, Family | None] = OrderedDict()
        self._bound: set[str] = set()
        self.ways: Counter[str] = Counter()

    def compose(self, number: int, overrides: Sequence[str], more: bool = True) -> Parts:
        """One point, resolved.

        Args:
            number: Of the point, in the sweep.
            overrides: As typed.
            more: Whether other points will follow.

        Raises:
            HydraException, OmegaConfBaseException: Hydra refuses it.
            ConfigurationError: A value is missing, or points nowhere.
        """
        is_first = not self.ways
        fast = None if is_first else self._fast(number, overrides)
        if fast is not None:
            return fast
        self.ways["by Hydra"] += 1
        config = self._by_hydra(number, overrides)
        proven = self._proven(config, overrides) if is_first and more else None
        parts = self._parts(config, number)
        if proven is not None:
            with suppress(Exception):  # what cannot be followed is composed anew
                self._remember(config, parts, proven)
        return parts

    def _fast(self, number: int, overrides: Sequence[str]) -> Parts | None:
        """None where Hydra must say what there is to say, be it the result or the error."""
        if self._reader is None:
            return None
        try:
            lines = [self._reader.line(text) for text in overrides]
            if any(line.kind is Kind.OTHER for line in lines):
                return None
            return self._by_value(number, lines) or self._by_choice(number, lines)
        except Exception:  # whatever it is, Hydra says it in the words of its own
            return None

    def _by_value(self, number: int, lines: list[Line]) -> Parts | None:
        family: Family | None = _recent(self._families, self._key(lines))
        if family is None:
            return None
        identity = _identity(number, lines, family.separators)
        parts = family.point(identity, lines, self._run_directory(number))
        self.ways["by value"] += 1
        return parts

    def _by_choice(self, number: int, lines: list[Line]) -> Parts | None:
        config = self._composed(number, lines)
        if config is None:
            return None
        parts = self._parts(config, number)
        self._remember(config, parts, lines)
        self.ways["by choice"] += 1
        return parts

    def _composed(self, number: int, lines: list[Line]) -> DictConfig | None:
        base = self._base(lines)
        if base is None or self._apply is None:
            return None
        config = copy.deepcopy(base)
        self._apply([line.override for line in lines if line.kind is Kind.VALUE], config)
        _identity(number, lines, _separators(config)).tell(config.hydra)
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def _base(self, lines: list[Line]) -> DictConfig | None:
        """What the choices of groups compose, without the values; None where that says nothing of the point."""
        choices = tuple(line.text for line in lines if line.kind is Kind.CHOICE)
        if choices not in self._bases:
            composed = self._loader.load_sweep_config(self._master, list(choices))
            _keep(self._bases, choices, None if _depends_on_values(composed) else composed)
        base: DictConfig | None = _recent(self._bases, choices)
        return base

    def _remember(self, config: DictConfig, parts: Parts, lines: list[Line]) -> None:
        """Make a family of a point where that is possible. Its overrides that others cannot vary are bound."""
        key = self._key(lines)
        if key in self._families:
            return
        values = [position for position, line in enumerate(lines) if line.stem and self._may_vary(line)]
        self._bound.update(lines[each].stem for each in values if not is_free(lines[each], config))
        free = [each for each in values if self._may_vary(lines[each])]
        base = self._base(lines)
        if not free or base is None or not are_apart(lines, base):
            _keep(self._families, self._key(lines), None)
            return
        family = Family(config, parts, free, lines, self._apply, self._master, _separators(config))
        _keep(self._families, self._key(lines), family)

    def _key(self, lines: list[Line]) -> tuple[str, ...]:
        """Alike for points of one family."""
        return tuple(line.stem if self._may_vary(line) else line.text for line in lines)

    def _may_vary(self, line: Line) -> bool:
        return line.is_scalar and line.stem not in self._bound

    def _by_hydra(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(self._master, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return config

    def _parts(self, config: DictConfig, number: int) -> Parts:
        set_run_directory(config, self._run_directory(number))
        HydraConfig.instance().set_config(config)  # ${hydra:...} in a point means this point
        return Parts(resolved(config), known_to_hydra(config))

    def _run_directory(self, number: int) -> str:
        return str(self._directory / str(number))

    def _proven(self, config: DictConfig, overrides: Sequence[str]) -> list[Line] | None:
        """Compare what Hydra has composed with our way, before anything is resolved; the overrides where they agree."""
        try:
            lines = [self._reader.line(text) for text in overrides] if self._reader else []
            if not lines or any(line.kind is Kind.OTHER for line in lines):
                return None
            ours = self._composed(0, lines)
        except Exception:  # Hydra has composed it, and we cannot
            return None
        if ours is None:
            return None
        if _raw(ours) != _raw(config):
            self._reader = None
            return None
        return lines


def _separators(config: DictConfig) -> dict[str, Any]:
    """What stands between overrides in the name that Hydra makes of them."""
    asked = config.hydra.job.config.override_dirname
    return {"kv_sep": asked.kv_sep, "item_sep": asked.item_sep, "exclude_keys": list(asked.exclude_keys)}


def _identity(number: int, lines: list[Line], separators: dict[str, Any]) -> Identity:
    """Hydra 1.3 writes the name of the overrides down; 1.4 makes it of them when it is asked for."""
    named = getattr(config_loader_impl, "get_overrides_dirname", None)
    dirname = None if named is None else named(overrides=[line.override for line in lines], **separators)
    return Identity(number, tuple(line.text for line in lines), dirname)


def _reader(loader: Any, master: DictConfig) -> Reader | None:
    try:
        return Reader(loader, master)
    except Exception:  # another Hydra than those we know
        return None


def _depends_on_values(base: DictConfig) -> bool:
    """Whether Hydra's own part reads what overrides set: environment variables to copy, separators of names."""
    job = OmegaConf.to_container(base.hydra.job, resolve=False)
    return not isinstance(job, dict) or bool(job["env_copy"]) or "${" in repr(job["config"])


def _raw(config: DictConfig) -> str:
    return repr(OmegaConf.to_container(config, resolve=False))


def _recent(known: OrderedDict[Any, Any], key: Any) -> Any:
    if key in known:
        known.move_to_end(key)
    return known.get(key)


def _keep(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    known[key] = value
    if len(known) > KEPT:
        known.popitem(last=False)

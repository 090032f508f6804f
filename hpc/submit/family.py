"""Points of a sweep that are composed from the same files and set the same settings, to other values.

The first of them is composed and resolved as a whole. In the others, what its overrides set is set anew, by Hydra's own
function; interpolations are resolved anew, in their order; and everything else is a plain value that nothing can
change: it is shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, ValueNode, open_dict, read_write

from hpc.submit.overrides import Kind, Line
from hpc.submit.resolve import plain, set_run_directory

Path = tuple[Any, ...]


class Parts(NamedTuple):
    """A point as it is frozen.

    Args:
        config: All values, resolved. Parts of it may be shared with other points: never change one in place.
        hydra: What HydraConfig tells of it.
    """

    config: dict[Any, Any]
    hydra: dict[str, Any]


class _Setting(NamedTuple):
    """Where a value stands, in the config as OmegaConf has it and from the top of it."""

    parent: Any
    key: Any
    path: Path

    def value(self) -> Any:
        return plain(self.parent[self.key])


@dataclass(frozen=True)
class Identity:
    """What Hydra says of a point besides its choices.

    Args:
        number: Of the point in the sweep.
        overrides: As typed.
        dirname: What `hydra.job.override_dirname` is; None where that follows from the overrides.
    """

    number: int
    overrides: tuple[str, ...]
    dirname: str | None

    @property
    def job(self) -> dict[str, Any]:
        """What `hydra.job` says of it."""
        told = {"id": str(self.number), "num": self.number}
        return told if self.dirname is None else {**told, "override_dirname": self.dirname}

    def tell(self, hydra: DictConfig) -> None:
        """Write it into Hydra's own part of a config."""
        with read_write(hydra), open_dict(hydra):
            hydra.job.update(self.job)
            hydra.overrides.task = list(self.overrides)


@dataclass
class Family:
    """A composed and resolved member, from which others follow.

    Args:
        config: The member's, as it was composed; it changes with every further point.
        parts: The member's.
        free: Positions of the overrides in which points may differ.
        lines: The member's overrides.
        apply: Hydra's own function that sets overrides in a config.
        master: The config of the whole sweep, whose resolvers have answered once for all points.
        separators: What stands between overrides in the name that Hydra makes of them.
    """

    config: DictConfig
    parts: Parts
    free: Sequence[int]
    lines: Sequence[Line]
    apply: Any
    master: DictConfig
    separators: dict[str, Any]
    _set: list[_Setting] = field(init=False)
    _interpolated: list[_Setting] = field(init=False)

    def __post_init__(self) -> None:
        paths = [self.lines[position].path for position in self.free]
        self._set = [_Setting(_parent(self.config, path), path[-1], path) for path in [*paths, ("run_dir",)]]
        self._interpolated = list(_interpolations(self.config))

    def point(self, identity: Identity, lines: Sequence[Line], directory: str) -> Parts:
        """The point with these overrides.

        Args:
            identity: What Hydra says of it.
            lines: Its overrides, which differ from the member's where they are free.
            directory: Its run directory.

        Raises:
            HydraException, OmegaConfBaseException: A value is of the wrong type, or points nowhere.
        """
        self.apply([lines[position].again for position in self.free], self.config)
        self.config.run_dir = directory  # is a plain text since the member was composed
        if self._interpolated:
            self._let_resolvers_see(identity, directory)
        config = self.parts.config
        for setting in (*self._set, *self._interpolated):
            config = _replaced(config, setting.path, setting.value())
        return Parts(config, self._hydra(identity, directory))

    def _let_resolvers_see(self, identity: Identity, directory: str) -> None:
        identity.tell(self.config.hydra)
        set_run_directory(self.config, directory)
        OmegaConf.copy_cache(from_config=self.master, to_config=self.config)
        HydraConfig.instance().cfg = self.config  # type: ignore[assignment]  # as its own set_config does it

    def _hydra(self, identity: Identity, directory: str) -> dict[str, Any]:
        hydra = self.parts.hydra
        return {
            **hydra,
            "job": {**hydra["job"], **identity.job},
            "overrides": {**hydra["overrides"], "task": list(identity.overrides)},
            "runtime": {**hydra["runtime"], "output_dir": directory},
        }


def are_apart(lines: Sequence[Line], base: DictConfig) -> bool:
    """Whether no override can see what another one sets: where they stand, and what they read of `base`."""
    paths = sorted(line.path for line in lines if line.kind is Kind.VALUE)
    overlap = any(longer[: len(path)] == path for path, longer in pairwise(paths))
    return not overlap and not any(_reads(line, base) for line in lines if line.kind is Kind.VALUE)


def is_free(line: Line, config: DictConfig) -> bool:
    """Whether setting the value again, in a config where it is set, changes this one plain value and no more."""
    if not line.is_scalar:
        return False
    parent = _parent(config, line.path)
    leaf = _child(parent, line.path[-1]) if isinstance(parent, DictConfig) else None
    return isinstance(leaf, ValueNode) and not leaf._is_interpolation()


def _reads(line: Line, base: DictConfig) -> bool:
    """Whether applying it may follow an interpolation: on the way to the setting, or in what is merged or compared."""
    node: Any = base
    for name in line.path[:-1]:
        node = _child(node, name)
        if node is None or isinstance(node, ValueNode):
            break
        if node._is_interpolation():
            return True
    if isinstance(node, Node) and not isinstance(node, DictConfig | ListConfig) and node._is_interpolation():
        return True
    scalar_change = line.is_scalar and line.override.type is not OverrideType.ADD
    value = line.override.value()
    if scalar_change or (isinstance(value, str) and line.override.type is OverrideType.CHANGE):
        return False
    return "${" in line.text or _has_interpolation(_child(node, line.path[-1]))


def _has_interpolation(node: Any) -> bool:
    if node is None:
        return False
    return bool(node._is_interpolation()) or any(True for _ in _interpolations(node))


def _child(node: Any, name: Any) -> Any:
    """The node as it stands there, or None: no interpolation is followed."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        return node._get_node(name, validate_access=False)
    if isinstance(node, ListConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        return node._get_node(int(name)) if str(name).isdigit() and int(name) < len(node) else None
    return None


def _parent(config: DictConfig, path: Path) -> Any:
    node: Any = config
    for name in path[:-1]:
        node = _child(node, name) if isinstance(node, DictConfig) else None
    return node


def _interpolations(node: Any, path: Path = ()) -> Iterator[_Setting]:
    """In the order in which they are resolved; Hydra's own part is not."""
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    keys: Any = range(len(node)) if isinstance(node, ListConfig) else list(node.keys())
    for key in keys if isinstance(node, DictConfig | ListConfig) else ():
        if (*path, key) == ("hydra",):
            continue
        child = node._get_node(key)
        if child._is_interpolation():
            yield _Setting(node, key, (*path, key))
        elif isinstance(child, DictConfig | ListConfig):
            yield from _interpolations(child, (*path, key))


def _replaced(tree: Any, path: Path, value: Any) -> Any:
    """A copy with another value at a path; what does not lie on the path is shared."""
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = _replaced(tree[path[0]], path[1:], value)
    return copy

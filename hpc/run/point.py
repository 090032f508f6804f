"""What is one point of a sweep, and what stands for it in points.jsonl?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpc.config.secrets import Secrets
from hpc.errors import ConfigurationError
from hpc.run import frozen
from hpc.run.alike import changed, differences
from hpc.run.vault import Vault, filled_in, hidden

if TYPE_CHECKING:
    from hpc.config import Settings

ELSEWHERE = ("hardware", "cluster", "launch", "run_dir")
"""Sections that a point's signature leaves out."""


@dataclass(frozen=True)
class Point:
    """One resolved config of a sweep.

    Args:
        name: Its directory below the sweep's; "." where the point is the whole run.
        overrides: What was typed to get it.
        config: Everything, interpolations resolved.
        hydra: What Hydra knew of it, for `HydraConfig.get()`; empty where Hydra was not asked.
        checked: Its settings, where they are built already.
    """

    name: str
    overrides: tuple[str, ...]
    config: dict[Any, Any]
    hydra: Mapping[str, Any] = field(default_factory=dict)
    checked: Settings | None = field(default=None, compare=False, repr=False)

    @cached_property
    def settings(self) -> Settings:
        """The parts that hpc reads, built and checked once.

        Raises:
            ConfigurationError: They are not valid.
        """
        if self.checked is not None:
            return self.checked
        from hpc.config import as_config, settings_of  # deferred: `hpc status` would wait for omegaconf

        return settings_of(as_config(self.config))

    @cached_property
    def signature(self) -> str:
        """Alike for points that compute the same, wherever they lie and run, on however much."""
        computed = {str(key): value for key, value in self.config.items() if key not in ELSEWHERE}
        written = json.dumps(json.loads(frozen.dumps(computed)), sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @cached_property
    def secrets(self) -> Secrets:
        """What of it is nobody else's to read."""
        return Secrets.of(self.config)

    @classmethod
    def of_line(cls, line: str) -> Point:
        """What `line` was made of.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ImportError: It is no such line.
        """
        fields = frozen.loads(line)
        return cls._of(fields, fields["config"], fields.get("hydra", {}))

    @classmethod
    def of_difference(cls, line: str, other: Point) -> Point:
        """What `line` was made of, where it says how it differs from another point.

        Raises:
            ValueError, LookupError, TypeError, AttributeError, ImportError: It is no such line.
        """
        fields = frozen.loads(line)
        hydra = changed(dict(other.hydra), fields.get("hydra", []))
        return cls._of(fields, changed(other.config, fields["config"]), hydra)

    @classmethod
    def _of(cls, fields: Mapping[str, Any], config: Any, hydra: Any) -> Point:
        point = cls(fields["name"], tuple(fields["overrides"]), config, hydra)
        if not isinstance(point.name, str) or not isinstance(point.config, dict) or not isinstance(point.hydra, dict):
            raise ValueError("it is not a point")
        return point

    def line(self) -> str:
        """What points.jsonl holds of it.

        Raises:
            ConfigurationError: A value is of a kind that cannot be written down.
        """
        fields = {"name": self.name, "overrides": self.overrides, "config": self.config}
        return frozen.dumps({**fields, "hydra": self.hydra} if self.hydra else fields) + "\n"

    def hidden(self, vault: Vault) -> Point:
        """The same for everybody to read: its secrets go into the vault."""
        config, hydra, overrides = hidden(vault, self.secrets, self.config, self.hydra, self.overrides)
        return replace(self, config=config, hydra=hydra, overrides=overrides)

    def revealed(self, vault: Vault) -> Point:
        """The same as it was before it was hidden."""
        config, hydra, overrides = map(vault.reveal, (self.config, self.hydra, self.overrides))
        return replace(self, config=config, hydra=hydra, overrides=overrides)

    def filled_in(self, other: Point) -> Point:
        """The same with the secrets of another point, which is like it.

        Raises:
            ConfigurationError: The other point lacks one.
        """
        try:
            config, hydra = filled_in(self.config, other.config), filled_in(self.hydra, other.hydra)
            return replace(self, config=config, hydra=hydra, overrides=filled_in(self.overrides, other.overrides))
        except (LookupError, TypeError) as error:
            raise ConfigurationError(
                f"All ranks must be started with the same config, but this one has no {error.args[0]}."
            ) from error

    def difference(self, number: int, other: Point) -> str:
        """What points.jsonl holds of it where it is much like another point.

        Args:
            number: Of the other point's line, from 0.
            other: The other point, whose own line is whole.

        Raises:
            ConfigurationError: A value is of a kind that cannot be written down.
        """
        parts = {"config": (other.config, self.config), "hydra": (other.hydra, self.hydra)}
        written = {part: list(differences(*both)) for part, both in parts.items()}
        fields = {"name": self.name, "overrides": self.overrides, "like": number, **written}
        return frozen.dumps(fields) + "\n"

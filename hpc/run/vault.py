"""Where are a sweep's secrets, when everybody may read what was frozen? In a file that is closed to others.

points.jsonl holds a number in the place of each of them, and secrets.json says what stands for it. Who may not read
that file, as a colleague who looks at the run, gets `***` instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.config.secrets import MASK, Memo, Secrets, replaced
from hpc.errors import LoadError
from hpc.files import PRIVATE_MODE, read_regular, replace_text
from hpc.run import frozen
from hpc.run.frozen import Hidden

SECRETS_FILE = "secrets.json"


class Vault:
    """The secrets of the points of one sweep.

    Args:
        known: By name.
    """

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self._values = dict(known or {})
        self._names: dict[str, str] = {}
        self._memos: dict[str, tuple[Secrets, Memo]] = {}

    def memo_of(self, part: str, found: Secrets) -> Memo:
        """What became of parts that points share, as long as their secrets are the same."""
        if part not in self._memos or self._memos[part][0] != found:
            self._memos[part] = (found, {})
        return self._memos[part][1]

    def hide(self, value: Any) -> Hidden:
        """What stands for a value where others can read."""
        name = self._names.setdefault(repr(value), secrets.token_hex(4))
        self._values[name] = value
        return Hidden(name)

    def reveal(self, tree: Any) -> Any:
        """A tree with the values that stand behind names; `***` for a name that is not known."""
        return replaced(tree, lambda _, value: isinstance(value, Hidden), self._value)

    def write(self, directory: Path, besides: Vault | None = None) -> list[Path]:
        """Keep them beside the points; returns the file, where there is one.

        Args:
            directory: The sweep's.
            besides: Those of the points that are there still.

        Raises:
            OSError: The file system says no.
        """
        path, values = directory / SECRETS_FILE, {**(besides._values if besides else {}), **self._values}
        if not values:
            path.unlink(missing_ok=True)
            return []
        replace_text(path, frozen.dumps(values) + "\n", PRIVATE_MODE)
        return [path]

    @classmethod
    def read(cls, directory: Path) -> Vault:
        """Those that this user may know.

        Raises:
            LoadError: The file is there, is readable, and is damaged.
        """
        path = directory / SECRETS_FILE
        try:
            return cls(dict(frozen.loads(read_regular(path).decode())))
        except (FileNotFoundError, PermissionError):
            return cls()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise LoadError(f"{path} is damaged ({error}): restore it, or choose another run_dir.") from error

    def _value(self, hidden: Hidden) -> Any:
        return self._values.get(hidden.name, MASK)


def hidden(
    vault: Vault, found: Secrets, config: Mapping[Any, Any], hydra: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Any, ...]:
    """A config, what Hydra knew of it and what was typed for it, with names in the place of secrets."""

    def in_hydra(path: tuple[Any, ...], value: Any) -> bool:
        return found.hides(path, value) or (isinstance(value, str) and found.hides_override(value))

    return (
        replaced(config, found.hides, vault.hide, (), vault.memo_of("config", found)),
        replaced(hydra, in_hydra, vault.hide, (), vault.memo_of("hydra", found)),
        replaced(tuple(overrides), in_hydra, vault.hide),
    )


def filled_in(theirs: Any, mine: Any) -> Any:
    """A tree with names in it, and the values of another tree in their places.

    Raises:
        LookupError, TypeError: The other tree has no value there.
    """

    def value_at(path: tuple[Any, ...]) -> Any:
        found = mine
        for key in path:
            found = found[key]
        return found

    def fill(tree: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(tree, Hidden):
            return value_at(path)
        if isinstance(tree, Mapping):
            return {key: fill(value, (*path, key)) for key, value in tree.items()}
        if isinstance(tree, (list, tuple)):
            return type(tree)(fill(value, (*path, number)) for number, value in enumerate(tree))
        return tree

    return fill(theirs, ())

"""Which project is the code that a submission must keep, and from which of its directories is it imported?

It is the one that holds the training function's module as it would be imported from here. With git that is the
outermost working tree, because code imports its neighbours, and submodules belong to it. Without git it is the
directory that the module's package lies in, because its neighbours are imported from there.

What is installed is not copied. Where that is the training function itself, the working tree of the directory that
the command is typed in is kept, if there is one: trackers and the like may come from there.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from hpc.run.versions import INSTALLED


def module_file(module: str) -> Path | None:
    """The file that the beginning of a module's name would be imported from; nothing is imported.

    Args:
        module: `my_project.train`.

    Returns:
        The module itself or a package above it; None where there is none, or it is a part of Python.
    """
    locations: list[str] = _search_path()
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, locations) or (_by_other_finders(name) if name == part else None)
        if spec is None or spec.origin in ("built-in", "frozen"):
            return None
        if spec.origin:
            return Path(spec.origin)
        locations = list(spec.submodule_search_locations or ())
    return None


def import_root(module: str, file: Path) -> Path:
    """The directory on sys.path that a module is imported from.

    Args:
        module: Its name.
        file: What `module_file` says of it.
    """
    place = file.parent if file.name == "__init__.py" else file.with_suffix("")
    for part in [*reversed(module.split("."))]:
        if part == place.name.partition(".")[0]:
            return place.parent
    return file.parent


def is_installed(path: Path) -> bool:
    """Whether pip or a distribution has put it there, or it comes with Python."""
    return any(part in INSTALLED for part in path.parts) or (Path(sys.base_prefix) / "lib") in path.parents


def import_directories(root: Path) -> list[str]:
    """Directories of a project that modules are imported from, relative to it, as this process would."""
    found = []
    for entry in [*_search_path(), *_editable_directories()]:
        path = Path(entry).resolve()
        if path.is_relative_to(root) and not is_installed(path) and path.is_dir():
            found.append("" if path == root else path.relative_to(root).as_posix())
    return list(dict.fromkeys(found))


def other_directories(roots: Sequence[Path]) -> list[Path]:
    """Where else modules would be imported from, besides these projects and what is installed: nothing keeps those."""
    found = [Path(entry).resolve() for entry in [*_search_path(), *_editable_directories()]]
    python = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    kept = [path for path in found if path.is_dir() and not is_installed(path)]
    return [path for path in dict.fromkeys(kept) if not any(map(path.is_relative_to, [*roots, *python]))]


def _search_path() -> list[str]:
    """As in a job: the directory that the command is typed in comes first, whichever way it is typed."""
    return [str(Path.cwd()), *(entry or str(Path.cwd()) for entry in sys.path)]


def _by_other_finders(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # it was imported in a way that leaves no trace of where from
        return None


def _editable_directories() -> Iterator[str]:
    """Parents of packages that setuptools has installed by a finder, which are not on sys.path."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            mapping = getattr(module, "MAPPING", {})
            yield from (str(Path(place).parent) for place in mapping.values())

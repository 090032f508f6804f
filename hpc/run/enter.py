"""How does a task come to import the code that was submitted, and not what its files have become since?

This file travels in every archive of code and is run from there, before anything else is imported: it stands on the
standard library alone. slurm_templates/enter.py has compared the archive with the digest in the batch script by then.

The archive is unpacked on the node once; every rank makes sure of each file. Then whatever would be imported from
where the code was submitted from is imported from there: by this process, by those that it starts, and whichever way
the code is installed. The working directory stays what it is.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import json
import os
import runpy
import shutil
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

MANIFEST = "hpc-manifest.json"
ENTER = "hpc-enter.py"
"""Members of an archive besides the code."""
EXIT_CANNOT = 78
UNUSED_SECONDS = 14 * 86400.0
"""A copy that nobody has entered for so long is removed from the node."""
TIME = 315532800
"""Of every file: the beginning of 1980, where zip's times begin. Compiled files beside it are then not mistaken."""


@dataclass(frozen=True)
class Moved:
    """A directory of the code, and its copy on this node.

    Args:
        live: Where it was submitted from; an absolute path without links in it.
        copy: Where it lies unpacked.
        directories: Those below it that the archive has, relative; "" is itself.
        imported: Those from which modules were imported at submission, in their order.
    """

    live: str
    copy: Path
    directories: frozenset[str]
    imported: tuple[str, ...]

    def directory(self, path: str) -> str | None:
        """The copy of a directory, or None where it has none."""
        inside = _below(self.live, path)
        return None if inside is None or inside not in self.directories else str(self.copy / inside)

    def file(self, path: str) -> Path | None:
        """The copy of a file, or None where it has none."""
        inside = _below(self.live, path)
        return None if not inside or not (self.copy / inside).is_file() else self.copy / inside


def enter(archive: zipfile.ZipFile, digest: str, arguments: Sequence[str]) -> None:
    """Unpack the archive, and run a module from it as `python -m` does.

    Args:
        archive: Compared with its digest already.
        digest: Of its bytes.
        arguments: `-m MODULE ARGUMENTS`, and options of the interpreter before it.
    """
    manifest = json.loads(archive.read(MANIFEST))
    try:
        home = unpack(archive, digest, _base(Path(tempfile.gettempdir())))
    except OSError as error:
        text = f"{tempfile.gettempdir()} must have room for the code of this job, but has not: {error}; set TMPDIR."
        print(f"hpc: {text}", file=sys.stderr)
        raise SystemExit(EXIT_CANNOT) from error
    names = archive.namelist()
    redirect([_moved(root, home, names) for root in manifest["roots"]])
    module, *rest = arguments[arguments.index("-m") + 1 :]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def unpack(archive: zipfile.ZipFile, digest: str, base: Path) -> Path:
    """Make a directory hold what the archive holds; what it holds already is compared, byte by byte.

    Args:
        archive: To unpack.
        digest: Names the directory.
        base: Where it is made; nobody else may write there.

    Raises:
        OSError: It cannot be written.
    """
    home = base / digest[:16]
    with _alone(base / f"{home.name}.lock"):
        for info in archive.infolist():
            if info.filename not in (MANIFEST, ENTER):
                _write(home / info.filename, archive.read(info), info.external_attr >> 16)
        os.utime(home)
        _keep(home)
    _remove_unused(base, time.time() - UNUSED_SECONDS)
    return home


def redirect(moved: Sequence[Moved]) -> None:
    """From here on, what was submitted is imported from its copy, in this process and in those that it starts."""
    before = sys.path if getattr(sys.flags, "safe_path", False) else [str(Path.cwd()), *sys.path]
    entries = [_directory(moved, entry) or entry for entry in before]
    entries += [str(each.copy / path) for each in moved for path in each.imported]  # editable installs have no entry
    sys.path[:] = list(dict.fromkeys(entries))
    told = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    handed_on = {
        *told,
        *(entry for entry in sys.path if any(_below(str(each.copy), entry) is not None for each in moved)),
    }
    os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry in handed_on)
    for name, module in list(sys.modules.items()):
        if any(each.file(str(getattr(module, "__file__", None) or "")) for each in moved):
            del sys.modules[name]  # a .pth file has imported it before us
    if any(finder not in (BuiltinImporter, FrozenImporter, PathFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Redirected(moved))
    importlib.invalidate_caches()


class _Redirected(MetaPathFinder):
    """Stands before the finders of editable installs, which know where the code was submitted from."""

    def __init__(self, moved: Sequence[Moved]) -> None:
        self.moved = moved

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """What the others find, or its copy."""
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                return self._copy(name, spec)
        return None

    def _copy(self, name: str, spec: ModuleSpec) -> ModuleSpec:
        found = next(filter(None, (each.file(spec.origin or "") for each in self.moved)), None)
        if found is not None:
            inside = None if spec.submodule_search_locations is None else [str(found.parent)]
            return importlib.util.spec_from_file_location(name, found, submodule_search_locations=inside) or spec
        if spec.origin is None and spec.submodule_search_locations is not None:  # a namespace: no file of its own
            places = [_directory(self.moved, each) or each for each in spec.submodule_search_locations]
            spec.submodule_search_locations = places
        return spec


def _moved(root: dict[str, Any], home: Path, names: Sequence[str]) -> Moved:
    prefix = f"{root['name']}/"
    parents = {parent for name in names if name.startswith(prefix) for parent in _parents(name[len(prefix) :])}
    return Moved(root["live"], home / root["name"], frozenset({"", *parents}), tuple(root["imported"]))


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _directory(moved: Sequence[Moved], path: str) -> str | None:
    return next(filter(None, (each.directory(str(Path(path).absolute())) for each in moved)), None)


def _below(directory: str, path: str) -> str | None:
    """The rest of a path below a directory, "" for the directory itself; None where it is elsewhere."""
    for candidate in (path, os.path.realpath(path)):
        if candidate == directory:
            return ""
        if candidate.startswith(f"{directory}/"):
            return candidate[len(directory) + 1 :]
    return None


def _base(temporary: Path) -> Path:
    """A directory of this user alone. Where somebody else has taken its name, this process has one of its own."""
    base = temporary / f"hpc-code-{os.getuid()}"
    with suppress(FileExistsError):
        base.mkdir(0o700)
    found = base.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return base if is_ours else Path(tempfile.mkdtemp(prefix="hpc-code-", dir=temporary))


@contextmanager
def _alone(path: Path, lock: int = fcntl.LOCK_EX) -> Iterator[None]:
    """One process of the node after the other. A directory must be there; a file is made."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, lock)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Unless it is there already; never in part, because another job may import from here at this moment."""
    is_link = stat.S_ISLNK(mode)
    if _is_there(path, data, is_link):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    if is_link:
        temporary.symlink_to(os.fsdecode(data))
    else:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if mode & 0o100 else 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.utime(temporary, (TIME, TIME))
    temporary.replace(path)


def _is_there(path: Path, data: bytes, is_link: bool) -> bool:
    try:
        if path.is_symlink() or is_link:
            return is_link and os.fsencode(path.readlink()) == data
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


_kept: list[int] = []


def _keep(home: Path) -> None:
    """While this process lives: systemd-tmpfiles leaves a directory alone that somebody has locked."""
    _kept.append(os.open(home, os.O_RDONLY | os.O_CLOEXEC))
    with suppress(OSError):
        fcntl.flock(_kept[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)


def _remove_unused(base: Path, before: float) -> None:
    """Copies that no process has locked and nobody has entered for long: nodes are not asked to clean up after us."""
    for home in base.iterdir():
        with suppress(OSError):
            if home.suffix == ".lock" or home.stat().st_mtime > before:
                continue
            with (
                _alone(base / f"{home.name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB),
                _alone(home, fcntl.LOCK_EX | fcntl.LOCK_NB),
            ):
                shutil.rmtree(home)


if __name__ == "hpc_enter":
    enter(globals()["archive"], globals()["digest"], sys.argv[3:])

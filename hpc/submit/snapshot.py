"""Makes the copy of the code that a submission runs: today's files, whatever becomes of them while jobs wait.

One archive with a name that follows from its content; the bytes follow from the content as well. Where an earlier
sweep on this file system has the same, it is linked. Which one that is is noted in the user's cache directory, as is
nothing else: it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc.config import Launch
from hpc.environ import process_environ
from hpc.errors import ConfigurationError
from hpc.run import enter
from hpc.run.code import Code
from hpc.run.point import Point
from hpc.submit.project import import_directories, import_root, is_installed, module_file
from hpc.submit.record import record
from hpc.submit.tree import LINK, File, Tree, blob_id, git_root, git_tree, plain_tree

TRIES = 5
"""Somebody may be saving files while they are read."""
DATE = (1980, 1, 1, 0, 0, 0)


def code_of(points: Sequence[Point]) -> Code:
    """The code that these points run, as it is now. Nothing is written below run_dir.

    Raises:
        ConfigurationError: It is larger than it may be, cannot be read, or git cannot say what it is.
    """
    launches = [point.settings.launch for point in points]
    if len({launch.snapshot for launch in launches}) > 1:
        raise ConfigurationError("launch.snapshot must be the same for all points of a sweep, but is true and false.")
    if not launches[0].snapshot:
        return Code(record([]))
    targets = list(dict.fromkeys(point.settings.experiment.target for point in points))
    trees = _trees(targets, launches[0])
    return replace(_archived(trees, targets, launches[0]), record=record(trees)) if trees else Code(record([]))


def _trees(targets: Iterable[str], launch: Launch) -> list[Tree]:
    """Every project once."""
    found: dict[Path, Tree] = {}
    for target in targets:
        tree = _tree(target.rpartition(".")[0], launch)
        if tree is not None and tree.root not in found:
            _check_size(tree, launch)
            found[tree.root] = tree
    return list(found.values())


def _tree(module: str, launch: Launch) -> Tree | None:
    file = module_file(module)
    if file is None or is_installed(file):
        root = git_root(Path.cwd())
        return None if root is None else git_tree(root)
    root = git_root(file.parent)
    tree = None if root is None else git_tree(root)
    if tree is None or _inside(tree, file) not in tree.files:  # git ignores the module
        return plain_tree(import_root(module, file).resolve(), launch.snapshot_max_files)
    return tree


def _inside(tree: Tree, file: Path) -> str:
    path = file.resolve()
    return path.relative_to(tree.root).as_posix() if path.is_relative_to(tree.root) else ""


def _check_size(tree: Tree, launch: Launch) -> None:
    total = sum(file.size for file in tree.files.values()) / 1e6
    if total <= launch.snapshot_max_megabytes and len(tree.files) <= launch.snapshot_max_files:
        return
    too_large = total > launch.snapshot_max_megabytes
    option, limit = ("megabytes", launch.snapshot_max_megabytes) if too_large else ("files", launch.snapshot_max_files)
    sizes: Counter[str] = Counter()
    for path, file in tree.files.items():
        sizes[path.partition("/")[0]] += file.size if too_large else 1
    largest = ", ".join(_share(name, size, too_large) for name, size in sizes.most_common(3))
    raise ConfigurationError(
        f"launch.snapshot_max_{option} must be at least what the code in {tree.root} has, but is {limit}, and the code "
        f"has {f'{total:.0f} MB' if too_large else f'{len(tree.files)} files or more'} ({largest}): name in .gitignore "
        "what is no code, or raise the limit, or set launch.snapshot=false to run what lies there when each job starts."
    )


def _share(name: str, size: int, in_bytes: bool) -> str:
    return f"{name} {size / 1e6:.0f} MB" if in_bytes else f"{name} {size}"


def _archived(trees: list[Tree], targets: list[str], launch: Launch) -> Code:
    """The same code once more where it is known, else a new archive of files that did not change meanwhile."""
    for _ in range(TRIES):
        trees = [_hashed(tree) for tree in trees]
        manifest = _manifest(trees)
        tree = _tree_hash(trees, manifest)
        known = _known(trees, tree)
        if known is not None:
            return known
        data = _archive(trees, manifest)
        again = [_hashed(each) for each in _trees(targets, launch)]
        if _tree_hash(again, manifest) == tree:
            return Code({}, tree, hashlib.sha256(data).hexdigest(), data, note=_note(trees))
        trees = again
    raise ConfigurationError(
        f"The code in {trees[0].root} must stay as it is while it is copied, but has changed {TRIES} times: try again, "
        "or set launch.snapshot=false."
    )


def _hashed(tree: Tree) -> Tree:
    files = {
        path: file if file.id else replace(file, id=blob_id(_read(tree, path))) for path, file in tree.files.items()
    }
    return replace(tree, files=files)


def _read(tree: Tree, path: str) -> bytes:
    try:
        return (tree.root / path).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{tree.root / path} must be readable to be kept for the job, but is not: {error.strerror}; "
            "repair it, or name it in .gitignore."
        ) from error


def _manifest(trees: Sequence[Tree]) -> str:
    roots: list[dict[str, Any]] = []
    for number, tree in enumerate(trees):
        name = tree.root.name if tree.root.name not in ("", *(root["name"] for root in roots)) else f"code{number}"
        roots.append({"name": name, "live": str(tree.root), "imported": _imported(tree)})
    return json.dumps({"roots": roots})


def _imported(tree: Tree) -> list[str]:
    """Only what the copy has: an environment of Python in the project stays where it is."""
    return [
        each for each in import_directories(tree.root) if not each or any(p.startswith(f"{each}/") for p in tree.files)
    ]


def _tree_hash(trees: Sequence[Tree], manifest: str) -> str:
    found = hashlib.sha256(f"{manifest}\n{_enter_source()}\n".encode())
    for tree in trees:
        for path in sorted(tree.files):
            found.update(f"{tree.files[path].mode:o} {tree.files[path].id} ".encode("utf-8", "surrogateescape"))
            found.update(os.fsencode(path) + b"\0")
    return found.hexdigest()


def _enter_source() -> str:
    return inspect.getsource(enter)


def _archive(trees: Sequence[Tree], manifest: str) -> bytes:
    """Not compressed: then the same code is the same bytes under every version of zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, enter.MANIFEST, manifest.encode(), File(0o100644, 0))
        _add(archive, enter.ENTER, _enter_source().encode(), File(0o100644, 0))
        for tree, root in zip(trees, json.loads(manifest)["roots"], strict=True):
            for path in sorted(tree.files):
                file = tree.files[path]
                data = os.fsencode(file.target) if file.mode == LINK else _read(tree, path)
                _add(archive, f"{root['name']}/{path}", data, file)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes, file: File) -> None:
    info = zipfile.ZipInfo(name, DATE)
    info.external_attr = file.mode << 16
    try:
        archive.writestr(info, data)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"Files of the code must have names in UTF-8, but there is {name!r}: rename it, or name it in .gitignore."
        ) from error


def _known(trees: Sequence[Tree], tree: str) -> Code | None:
    """An archive of the same code that an earlier submission has left, if it is whole."""
    try:
        noted = json.loads(_note(trees).read_text())
        twin, digest = Path(noted["archive"]), str(noted["digest"])
        if noted["tree"] != tree or twin.is_symlink():
            return None
        data = twin.read_bytes()
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Code({}, tree, digest, data, twin, note=_note(trees)) if hashlib.sha256(data).hexdigest() == digest else None


def _note(trees: Sequence[Tree]) -> Path:
    roots = [str(tree.root) for tree in trees]
    environ = process_environ()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (
        Path(cache).expanduser()
        / "hpc"
        / "code"
        / f"{hashlib.sha256(json.dumps(roots).encode()).hexdigest()[:16]}.json"
    )

"""Which files are a project's code? What git tracks or would track; without git, what lies there and may be code.

Of what git ignores, compiled extensions and generated modules inside of packages are code all the same, because the
package cannot be imported without them. Other files and directories that it ignores are data: the copy has links to
them, so that code which opens `Path(__file__).parent / "data"` finds what it has always found.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path, PurePosixPath

from hpc.environ import process_environ
from hpc.errors import ConfigurationError
from hpc.run.listing import POINTS_FILE, SWEEP_FILE

IMPORTABLE = (".py", *EXTENSION_SUFFIXES)
NEVER = ("__pycache__", "node_modules")
NO_DATA = (".pyc", ".log", ".tmp", ".swp", "~", ".egg-info")
MOST_LINKS = 1000
"""Of ignored files; where a pattern names more of them, only ignored directories are linked."""
GIT_SECONDS = 120
LINK = 0o120000


@dataclass(frozen=True)
class File:
    """One file of a tree.

    Args:
        mode: 0o100644, 0o100755, or 0o120000 for a link, as git has them.
        size: Bytes.
        id: Hash of its content; git's own where git knows that it has not changed. "" is to be computed.
        target: Where a link leads to in the copy.
    """

    mode: int
    size: int
    id: str = ""
    target: str = ""


@dataclass(frozen=True)
class Tree:
    """The code of one project.

    Args:
        root: Its directory, without links in it.
        files: By their paths below it.
        commit: Which git calls HEAD; "" without git, or before the first commit.
        changed: Paths that differ from the commit.
    """

    root: Path
    files: Mapping[str, File]
    commit: str = ""
    changed: tuple[str, ...] = ()


def git_root(directory: Path) -> Path | None:
    """The outermost working tree that holds a directory; None where there is none, or no git.

    Raises:
        ConfigurationError: There is one, and git refuses to look at it.
    """
    if not any(os.path.lexists(each / ".git") for each in (directory, *directory.parents)):
        return None
    try:
        said = _git(directory, "rev-parse", "--show-toplevel", "--show-superproject-working-tree").decode().splitlines()
    except FileNotFoundError:
        return None
    if len(said) > 1:
        return git_root(Path(said[1]))
    return Path(said[0]).resolve() if said else None


def commit_of(directory: Path) -> str:
    """Which commit a directory is at; "" where git does not say."""
    try:
        root = git_root(directory)
        return _git(root, "rev-parse", "HEAD").decode().strip() if root else ""
    except (ConfigurationError, OSError):
        return ""


def git_tree(root: Path) -> Tree:
    """What git tracks there, or would track; submodules as well.

    Raises:
        ConfigurationError: Git cannot say it.
    """
    known = _Known(root)
    known.look("")
    files = {path: known.file(path) for path in known.paths()}
    found = {path: file for path, file in files.items() if file is not None}
    links = _ignored(root, known.ignored, found)
    return Tree(root, {**found, **links}, known.commit, tuple(sorted(known.changed)))


def plain_tree(root: Path, most: int) -> Tree:
    """Everything below a directory without a git; nothing hidden, no environments of Python, no run directories.

    Args:
        root: Without links in it.
        most: Stop after so many files: there are too many of them, and a home directory has millions.
    """
    files: dict[str, File] = {}
    for path in _walk(root):
        relative = path.relative_to(root).as_posix()
        file = _file(root, relative)
        if file is not None:
            files[relative] = file
        if len(files) > most:
            break
    return Tree(root, files)


class _Known:
    """What git says of a working tree and its submodules."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids: dict[str, str] = {}
        self.changed: set[str] = set()
        self.ignored: list[str] = []
        self.commit = ""

    def look(self, below: str) -> None:
        """Ask git about the root, or about a submodule below it."""
        directory = self.root / below
        inner = []
        for line in _texts(_git(directory, "ls-files", "-s", "-v", "-z")):
            tag, mode, name, rest = line.split(" ", 3)
            path = below + rest.partition("\t")[2]
            if mode == "160000":
                inner.append(f"{path}/")
            else:  # what git was told not to look at is looked at here
                self.ids[path] = "" if tag != "H" else name
        inner += self._look_at_changes(directory, below)
        for path in inner:
            if os.path.lexists(self.root / path / ".git"):
                self.look(path)

    def _look_at_changes(self, directory: Path, below: str) -> list[str]:
        """Returns repositories that lie there without being submodules."""
        asked = ("--porcelain=v2", "-z", "--branch", "--untracked-files=all", "--ignored=matching")
        lines = iter(_texts(_git(directory, "status", *asked, "--ignore-submodules=all", "--no-renames")))
        untracked = []
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "#" and rest.startswith("branch.oid ") and not below:
                self.commit = rest.partition(" ")[2].replace("(initial)", "")
            elif kind == "?":
                untracked.append(below + rest)
            elif kind == "!":
                self.ignored.append(below + rest)
            elif kind in ("1", "u"):
                self.changed.add(below + rest.split(" ", 7 if kind == "1" else 9)[-1])
        self.changed.update(_without_runs_and_environments([path for path in untracked if not path.endswith("/")]))
        return [path for path in untracked if path.endswith("/")]

    def paths(self) -> Iterable[str]:
        """All of them, each once."""
        return dict.fromkeys([*self.ids, *sorted(self.changed)])

    def file(self, path: str) -> File | None:
        """None where it is not there: deleted, or left out of a sparse checkout."""
        return _file(self.root, path, "" if path in self.changed else self.ids.get(path, ""))


def _ignored(root: Path, ignored: list[str], files: Mapping[str, File]) -> dict[str, File]:
    """What is imported from inside of packages, and links to data."""
    packages = {path.rpartition("/")[0] for path in files if path.endswith("/__init__.py")}
    modules = {path.rpartition("/")[0] for path in files if path.endswith(".py")}
    found: dict[str, File] = {}
    links: list[str] = []
    for path in ignored:
        parent, _, name = path.rstrip("/").rpartition("/")
        if name.startswith(".") or name in NEVER or path.rstrip("/").endswith(NO_DATA):
            continue
        if parent in packages and path.endswith("/"):
            inside = [each.relative_to(root).as_posix() for each in _walk(root / path)]
            code = [each for each in inside if each.endswith(IMPORTABLE)]
            found.update(_present(root, code))
            links += [] if code else [path]
        elif parent in modules and path.endswith(IMPORTABLE):
            found.update(_present(root, [path]))
        else:
            links.append(path)
    kept = links if len(links) <= MOST_LINKS else [path for path in links if path.endswith("/")]
    return {**found, **{path.rstrip("/"): _link(root / path.rstrip("/")) for path in kept}}


def _present(root: Path, paths: Iterable[str]) -> dict[str, File]:
    return {path: file for path in paths if (file := _file(root, path)) is not None}


def _file(root: Path, path: str, known: str = "") -> File | None:
    try:
        found = os.lstat(f"{root}/{path}")  # a Path would take longer to make than the answer
    except OSError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return _copied_link(root, root / path)
    if not stat.S_ISREG(found.st_mode):
        return None
    return File(0o100755 if found.st_mode & stat.S_IXUSR else 0o100644, found.st_size, known)


def _copied_link(root: Path, path: Path) -> File:
    """A link that stays inside is relative in the copy; one that leads outside leads to the same place."""
    try:
        target = (path.parent / path.readlink()).resolve()
    except (OSError, RuntimeError):  # it leads back to itself
        return _link(path.readlink())
    return _link(os.path.relpath(target, path.parent) if target.is_relative_to(root) else target)


def _link(target: Path | str) -> File:
    return File(LINK, 0, str(target), str(target))


def _walk(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        if SWEEP_FILE in names and POINTS_FILE in names:
            directories.clear()
            continue
        links = [name for name in directories if Path(parent, name).is_symlink()]
        directories[:] = [name for name in sorted(directories) if _may_be_code(Path(parent), name)]
        yield from (Path(parent, name) for name in sorted([*names, *links]) if not name.endswith((".pyc", ".tmp")))


def _may_be_code(parent: Path, name: str) -> bool:
    if name.startswith(".") or name in NEVER or name.endswith(".egg-info"):
        return False
    if not os.access(parent / name, os.R_OK | os.X_OK):  # nor could this user import anything from there
        return False
    return not any((parent / name / sign).exists() for sign in ("pyvenv.cfg", "conda-meta"))


def _without_runs_and_environments(paths: list[str]) -> list[str]:
    """Untracked files, without what hpc itself has written and without whole installations of Python."""
    names = set(paths)
    parents = {path: str(PurePosixPath(path).parent) for path in paths}
    runs = {parent for path, parent in parents.items() if path.endswith(f"/{SWEEP_FILE}")}
    runs = {parent for parent in runs if f"{parent}/{POINTS_FILE}" in names}
    environments = {parent for path, parent in parents.items() if path.endswith("/pyvenv.cfg")}
    left_out = tuple(f"{each}/" for each in (*runs, *environments))
    return [path for path in paths if not (left_out and path.startswith(left_out))]


def _texts(output: bytes) -> list[str]:
    return [os.fsdecode(each) for each in output.split(b"\0") if each]


def _git(directory: Path, *arguments: str) -> bytes:
    environ = {name: value for name, value in process_environ().items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=directory,
            env={**environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
        )
        said = done.stderr.decode(errors="replace") if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"nothing in {GIT_SECONDS} seconds"
    if said:
        raise ConfigurationError(
            f"The code of a job is kept as git sees it, but git says of {directory}: "
            f"{' '.join(said.split()).rstrip('.')}; do what it asks for, or set launch.snapshot=false."
        )
    return done.stdout


def blob_id(data: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def difference(tree: Tree) -> str:
    """How tracked files differ from the commit, as git tells it."""
    return _git(tree.root, "diff", "HEAD", "--no-color", "--no-ext-diff", "--submodule=short").decode(errors="replace")

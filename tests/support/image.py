"""A root file system with a Python of its own, made from this machine's files: an image for Charliecloud."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

PYTHON = "/opt/image/bin/python3"
"""Inside."""
LIBRARIES = f"/opt/image/lib/python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = f"{LIBRARIES}/site-packages"
MOUNT = f"{Path(torch.__file__).parent.parent}:{PACKAGES}"
"""What is installed here, seen where the image's Python looks: copying it would take minutes."""
UNUSED = ("site-packages", "dist-packages", "__pycache__", "test", "idlelib", "lib2to3", "ensurepip")
TRIPLET = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
DIRECTORIES = ("dev", "proc", "sys", "tmp", "etc", "root", "home", "run", "var/tmp", "opt/image/bin", PACKAGES[1:])
PROGRAMS = ("sh", "bash", "env", "uname")


def make_image(directory: Path, mount_points: tuple[Path, ...] = ()) -> Path:
    """Build it; files are linked where the file system is the same.

    Args:
        directory: Must not exist.
        mount_points: Directories that are to exist inside, because nobody makes them there (Charliecloud before 0.34).
    """
    for name in (*DIRECTORIES, *(str(path)[1:] for path in mount_points)):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64"):
        (directory / "usr" / name).mkdir(parents=True)
        (directory / name).symlink_to(f"usr/{name}")
    executable = Path(os.path.realpath(sys.executable))
    _link(executable, directory / PYTHON[1:])
    for source in _libraries(executable):
        _link(source, directory / "usr" / "lib" / TRIPLET / source.name)
    for source in Path("/lib64").glob("ld-linux*"):
        _link(Path(os.path.realpath(source)), directory / "usr" / "lib64" / source.name)
    for name in PROGRAMS:
        _link(Path(os.path.realpath(str(shutil.which(name)))), directory / "usr" / "bin" / name)
    shutil.copytree(
        sysconfig.get_path("stdlib"), directory / LIBRARIES[1:], copy_function=_link, dirs_exist_ok=True,
        symlinks=False, ignore=shutil.ignore_patterns(*UNUSED), ignore_dangling_symlinks=True,
    )  # fmt: skip
    for name in ("passwd", "group", "hosts", "nsswitch.conf", "resolv.conf", "localtime"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), directory / "etc" / name)
    return directory


def _libraries(executable: Path) -> Iterator[Path]:
    """Of a Python that was built by hand, before the distribution's, which may be of the same name."""
    yield from (executable.parent.parent / "lib").glob("libpython*.so*")
    yield from (path for path in Path("/usr/lib", TRIPLET).glob("*.so*") if path.is_file())


def _link(source: str | Path, target: str | Path) -> None:
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(source)
    with suppress(FileExistsError):
        try:
            os.link(real, target)
        except OSError:
            if not target.exists():
                shutil.copy2(real, target)

"""Whose pen reaches a run directory? Who can write there can put a file in the place of another, and run code as you.

    the run directory          is yours, and no one else may write into it
    a directory above it       no one else may write into it either, or they could put another in its place; unless it
                               is sticky as /tmp is, where everybody moves their own things only, and then what
                               lies in it must be yours or root's

Who owns a directory above is trusted as root is: you are their guest by your own choice.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from hpc.errors import ConfigurationError
from hpc.files import PRIVATE_DIRECTORY_MODE, make_directory

OWNER, GROUP, ANYONE = "owner", "group", "anyone"
"""cluster.run_dir_writers."""


def check_ownership(directory: Path, writers: str = OWNER) -> None:
    """Look at what there is of a run directory, and at the directories above it, on their real paths.

    Args:
        directory: A run's or a sweep's. What is missing will be made by this user.
        writers: Who may write there.

    Raises:
        ConfigurationError: Somebody else may.
    """
    if writers == ANYONE:
        return
    real = Path(os.path.realpath(directory))
    is_sticky = False
    for path in (*reversed(real.parents), real):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"run_dir must be a directory, but {path} is not: {error.strerror}.") from error
        is_last = path == real
        if is_last or is_sticky:
            _check_owner(path, found, writers, may_be_root=not is_last)
        others = _other_writers(path, found, writers)
        is_sticky = bool(others and found.st_mode & stat.S_ISVTX)
        if others and (is_last or not is_sticky):
            raise ConfigurationError(
                f"run_dir must be where nobody else can write, but {path} is writable by {others}, who could run code "
                f"as you: {_advice(path, is_last, others)}, choose another run_dir, or {_setting(others)}."
            )


def check_private(directory: Path) -> None:
    """Look at a directory that others may not even read.

    Raises:
        ConfigurationError: It is a link, somebody else's, or open to others.
    """
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(f"{directory} must be a directory of your own, but is not: remove it.")
    if stat.S_IMODE(found.st_mode) & ~PRIVATE_DIRECTORY_MODE:
        raise ConfigurationError(f"{directory} must be closed to others, but is not: chmod 700 {directory}.")


def make_private(directory: Path) -> list[Path]:
    """A directory that others may not even read, made or closed to them; returns what was made, from the top down.

    Raises:
        ConfigurationError: It is a link, or somebody else's.
        OSError: The file system says no.
    """
    made = make_directory(directory, PRIVATE_DIRECTORY_MODE)
    if directory.lstat().st_uid == os.geteuid():
        directory.chmod(PRIVATE_DIRECTORY_MODE)
    check_private(directory)
    return made


def _check_owner(path: Path, found: os.stat_result, writers: str, may_be_root: bool) -> None:
    allowed = {os.geteuid(), *([0] if may_be_root else [])}
    if found.st_uid not in allowed and writers == OWNER:
        raise ConfigurationError(
            f"run_dir must be your own, but {path} belongs to {_user(found.st_uid)}, who could run code as you: choose "
            "another run_dir, or set cluster.run_dir_writers=group if you trust its group so far."
        )


def _other_writers(path: Path, found: os.stat_result, writers: str) -> str:
    """Who besides its owner may write into a directory, or ""."""
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    if found.st_mode & stat.S_IWGRP and writers == OWNER and not _is_private(path, found):
        return f"group {_group(found.st_gid)}"
    return ""


def _is_private(path: Path, found: os.stat_result) -> bool:
    """Whether the group has its owner for its only member, as many systems make one for each user."""
    try:
        group, user = grp.getgrgid(found.st_gid), pwd.getpwuid(found.st_uid)
        has_list = "system.posix_acl_access" in os.listxattr(path)  # the group's bits then tell of further users
    except (KeyError, OSError):
        return False
    return not has_list and group.gr_name == user.pw_name and {*group.gr_mem} <= {user.pw_name}


def _advice(path: Path, is_last: bool, others: str) -> str:
    who = "o" if others == "everybody" else "g"
    return f"`chmod {who}-w {path}`" if is_last else f"`chmod +t {path}`"


def _setting(others: str) -> str:
    value = ANYONE if others == "everybody" else GROUP
    return f"set cluster.run_dir_writers={value} if you trust them so far"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)

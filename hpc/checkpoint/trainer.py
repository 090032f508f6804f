"""What must trainer.pt hold, and is it that? Anybody may have written it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import IO, Any

from hpc.checkpoint.archive import read_archive
from hpc.checkpoint.manifest import ITEM_BYTES, Written
from hpc.checkpoint.optimizers import tags
from hpc.checkpoint.reading import shown
from hpc.errors import HpcError, LoadError

MOST_COPIES = 8
"""As much memory as all tensors have, for tensors that are saved once and wanted under other names as well."""


def read_trainer(file: IO[bytes]) -> dict[str, Any]:
    """The content of a trainer.pt; nobody's code is run by reading it.

    Raises:
        ValueError: It holds something else than plain values.
    """
    content = read_archive(file)
    if type(content) is not dict or not all(type(key) is str for key in content):
        raise ValueError(f"it holds a {type(content).__name__}")
    return content


def check_trainer(content: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Refuse what has another form than `hpc.checkpoint.state` gives it.

    Args:
        content: Of trainer.pt, as the newest format has it.
        tensors: All names that a tensor of the checkpoint has.

    Raises:
        ValueError: It has.
    """
    _check(all(type(each) is dict for each in _list(content, "models")), "models")
    for optimizer in _list(content, "optimizers"):
        groups = _list(optimizer, "groups")
        _check(all(_are_texts(_list(group, "params")) for group in groups), "the groups of an optimizer")
        kinds = {"state", "unkeyed", "more"} & optimizer.keys()
        _check("whole" in optimizer or "state" in kinds, "an optimizer")
        _check(all(type(optimizer[kind]) is dict for kind in kinds), "an optimizer")
    _check(type(content.get("others")) is dict and _are_texts(content["others"]), "others")
    _check("grown" not in content or _are_texts(_list(content, "grown")), "grown")
    frozen = content.get("frozen")
    if frozen is not None:
        _check(_are_texts(_list(frozen, "now")) and _are_texts(_list(frozen, "set up")), "frozen")
    for tag in tags([content[kind] for kind in ("models", "optimizers", "others")]):
        _check(type(tag["name"]) is str and tag["name"] in tensors and type(tag.get("device")) is str, "tensors")


def check_aliases(written: Written, live: Set[str]) -> None:
    """Refuse names without end for one tensor, each of which would get memory of its own.

    Raises:
        ValueError: There are too many.
    """
    sizes = {name: math.prod(each.shape) * ITEM_BYTES[each.dtype] for name, each in written.tensors.items()}
    copies = sum(sizes[stored] for alias, stored in written.aliases.items() if alias not in live)
    if copies > MOST_COPIES * sum(sizes.values()):
        raise ValueError("it has too many names for one tensor")


@contextmanager
def understood() -> Iterator[None]:
    """While what trainer.pt holds is put to use: whatever is wrong with it is said in one sentence.

    Raises:
        LoadError: Something is.
    """
    try:
        yield
    except HpcError:
        raise
    except Exception as error:
        raise LoadError(
            f"The checkpoint's trainer.pt must hold what hpc has written, but does not ({type(error).__name__}: "
            f"{shown(error)}): restore it, or choose another run_dir to start anew."
        ) from error


def _list(content: Any, key: str) -> list[Any]:
    found = content.get(key) if type(content) is dict else None
    _check(type(found) is list, key)
    return found  # type: ignore[return-value]


def _are_texts(values: Collection[Any]) -> bool:
    return all(type(each) is str for each in values)


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(f"its {what} have another form than hpc gives them")

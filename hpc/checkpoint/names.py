"""What is each tensor of a training run called? After the user's own module, whatever it was wrapped in.

model/<name>                        of the first model; model_1/<name> of the second
optimizer/<name of parameter>/<key> of the first optimizer; optimizer_1/... of the second
others/<name>/<key>                 of what was registered, and of whatever else holds tensors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch

_T = TypeVar("_T")

SHOWN_NAMES = 3

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""What torch.compile and activation checkpointing put into names (torch 2.6-2.13)."""


def own_name(name: str) -> str:
    """A name without what wrappers added."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def kind(prefix: str, index: int) -> str:
    """What the index-th model or optimizer is called."""
    return f"{prefix}_{index}" if index else prefix


def below(which: str, named: Mapping[str, _T]) -> dict[str, _T]:
    """Those of one kind, by the rest of their name."""
    prefix = f"{which}/"
    return {name.removeprefix(prefix): each for name, each in named.items() if name.startswith(prefix)}


def spoken(name: str) -> str:
    """A tensor's name in a sentence: the first model's names are the user's own."""
    return name.removeprefix("model/")


def few(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more


def named_parameters(models: Sequence[torch.nn.Module], others: Mapping[str, object]) -> dict[str, torch.nn.Parameter]:
    """Name -> parameter; where one has several names, the last is the one that it goes by.

    Args:
        models: That were prepared.
        others: What was registered, by name; modules among them have parameters, too.
    """
    found: dict[str, torch.nn.Parameter] = {}
    for name, other in others.items():
        if isinstance(other, torch.nn.Module):
            found |= {f"{name}/{own_name(key)}": each for key, each in other.named_parameters()}
    for index, model in enumerate(models):
        prefix = f"{kind('model', index)}/" if index else ""
        found |= {prefix + own_name(key): each for key, each in model.named_parameters()}
    return found

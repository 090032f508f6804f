"""What do the user's modules and optimizers keep in attributes of their own, which training changes and nothing saves?

A count of calls, a generator of random numbers, a running mean that is no buffer: state_dict has none of them, and a
resumed run begins with them anew. What is only made at the first step, as a table of angles, is the same each time and
is not meant, so values of after the first step are compared with those at the saves that follow.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xxhash
from torch import nn

from hpc.checkpoint.drift import checksum
from hpc.checkpoint.names import few, kind, own_name, spoken
from hpc.checkpoint.packing import packed
from hpc.checkpoint.tensors import is_storable
from hpc.errors import ConfigurationError
from hpc.say import warn

LOOKS = 2
"""Saves of a life that are looked at; the first may be one at which nothing can have changed yet."""
OF_ENGINES = ("ds_", "_ds_")
"""How attributes begin that DeepSpeed gives to modules."""

Values = dict[str, Any]
"""Name -> a number, or a digest of something larger."""


@dataclass
class Unsaved:
    """Of one life, on one rank."""

    _before: Values | None = field(default=None, init=False)
    _looks: int = field(default=LOOKS, init=False)

    def begin(self, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """The first step was taken."""
        self._before = _values(models, optimizers)

    def look(self, models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """At a save: say once which values have changed."""
        if self._before is None or self._looks == 0:
            return
        self._looks -= 1
        now = _values(models, optimizers)
        changed = [spoken(name) for name, value in now.items() if self._before.get(name, value) != value]
        if changed:
            self._looks = 0
            warn(
                "state_dict leaves out attributes that have changed since the first step, so that a resumed run begins "
                f"with them anew: {few(changed)}; where a later step depends on one, keep it in a buffer "
                "(register_buffer), or return it from the module's get_extra_state or the optimizer's state_dict."
            )


def _values(models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Values:
    found = (*_of_models(models), *_of_optimizers(optimizers))
    digests = {name: _digest(value) for name, value in found}
    return {name: digest for name, digest in digests.items() if digest is not None}


def _of_models(models: Sequence[nn.Module]) -> Iterator[tuple[str, Any]]:
    torchs = vars(nn.Module()).keys()
    for number, model in enumerate(models):
        for path, module in model.named_modules():
            if _saves_more(module):
                continue
            place = f"{kind('model', number)}/{own_name(path)}{'.' if path else ''}"
            for key, value in vars(module).items():
                if key not in torchs and not key.startswith(OF_ENGINES):
                    yield place + key, value
            for key in module._non_persistent_buffers_set:
                yield place + key, module._buffers.get(key)


def _of_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[tuple[str, Any]]:
    torchs = vars(torch.optim.SGD([torch.zeros(1)], lr=0.0)).keys()
    for number, optimizer in enumerate(optimizers):
        if type(optimizer).state_dict is torch.optim.Optimizer.state_dict:
            for key, value in vars(optimizer).items():
                if key not in torchs:
                    yield f"{kind('optimizer', number)}.{key}", value


def _saves_more(module: nn.Module) -> bool:
    """Whether code of its own, or a hook, puts more into its state dict than parameters and buffers."""
    own = (type(module).state_dict, type(module)._save_to_state_dict, type(module).get_extra_state)
    torchs = (nn.Module.state_dict, nn.Module._save_to_state_dict, nn.Module.get_extra_state)
    return own != torchs or bool(module._state_dict_hooks)


def _digest(value: Any) -> Any:
    """None of what cannot be state: functions, modules, and tensors that autograd is asked about."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    try:
        return xxhash.xxh3_64_hexdigest(pickle.dumps(packed(value, "", _sum)))
    except ConfigurationError:
        return None


def _sum(place: str, tensor: torch.Tensor) -> int:
    del place
    if tensor.requires_grad or not is_storable(tensor):
        return 0
    return int(checksum(tensor))

"""What does an optimizer keep, told by the names of its parameters instead of by their places?

`state_dict()` of torch's optimizers numbers parameters. Here they go by name, so that a checkpoint fits whatever the
order in which parameters were handed over, and however they are sharded. What an optimizer keeps besides goes along:
state under keys of its own, further entries of its state dict. One whose state dict has another form altogether is
saved as it says, and goes back to the same parameters in the same order only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hpc.checkpoint.manifest import TensorEntry
from hpc.checkpoint.models import fresh
from hpc.checkpoint.names import few
from hpc.checkpoint.packing import packed
from hpc.checkpoint.plain import TAG, Fetch, Keep
from hpc.checkpoint.shards import is_distributed
from hpc.checkpoint.tensors import DTYPES
from hpc.checkpoint.unpacking import unpacked
from hpc.errors import ConfigurationError, SaveError


class NamedOptimizer:
    """An optimizer whose state is told by name of parameter instead of by index.

    Args:
        which: What it is called.
        optimizer: As torch made it.
        known: All parameters, by name.
    """

    def __init__(self, which: str, optimizer: torch.optim.Optimizer, known: Mapping[str, torch.nn.Parameter]) -> None:
        self.which, self.optimizer, self._known = which, optimizer, known
        names = {id(parameter): name for name, parameter in known.items()}
        self.groups = [
            {names.get(id(p), f"group_{g}.{i}"): p for i, p in enumerate(group["params"])}
            for g, group in enumerate(optimizer.param_groups)
        ]
        self.parameters = {name: parameter for group in self.groups for name, parameter in group.items()}
        self._strange = [
            (g, parameter)
            for g, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if id(parameter) not in names
        ]

    def check(self) -> None:
        """Refuse to train what no checkpoint would hold.

        Raises:
            ConfigurationError: A parameter belongs to no model that is saved.
        """
        for group, parameter in self._strange:
            raise ConfigurationError(
                f"{type(self.optimizer).__name__} must train parameters that are saved, but one of shape "
                f"{list(parameter.shape)} in its parameter group {group} belongs to no prepared model: prepare the "
                "module that it is in, or register it."
            )

    def state(self, keep: Keep, keep_other: Keep) -> dict[str, Any]:
        """What trainer.pt holds of it.

        Args:
            keep: What is done with a tensor of a parameter's state.
            keep_other: What is done with other tensors.

        Raises:
            ConfigurationError: A value cannot be saved.
            SaveError: A tensor belongs to a sharded parameter and does not say how it is sharded itself.
        """
        given = self.optimizer.state_dict()
        names = [[*group] for group in self.groups]
        if not _is_usual(given, len(self.parameters)):
            return {"groups": [{"params": each} for each in names], "whole": packed(given, self.which, keep_other)}
        places = [*self.parameters]
        state: dict[str, Any] = {}
        unkeyed: dict[Any, Any] = {}
        for key, value in given["state"].items():
            if _is_place(key, len(places)):
                state[places[key]] = packed(value, f"{self.which}/{places[key]}", self._checked(places[key], keep))
            else:
                unkeyed[key] = value
        more = {key: value for key, value in given.items() if key not in ("state", "param_groups")}
        options = [{key: each for key, each in group.items() if key != "params"} for group in given["param_groups"]]
        groups = packed(options, f"{self.which}/groups", keep_other)
        return {
            "groups": [{**group, "params": each} for group, each in zip(groups, names, strict=True)],
            "state": state,
            "unkeyed": packed(unkeyed, f"{self.which}/state", keep_other),
            "more": packed(more, self.which, keep_other),
        }

    def settings(self) -> dict[str, str]:
        """Numbers that all ranks must have alike: options of the groups, and what counts for a whole sharded parameter.

        Losses of a rank's own, in ReduceLROnPlateau, are the usual way to have them differ, and sharded weights would
        never show it.
        """
        found = {
            f"{self.which}/groups[{index}]/{key}": repr(value)
            for index, group in enumerate(self.optimizer.param_groups)
            for key, value in group.items()
            if _is_number(value)
        }
        sharded = {name: each for name, each in self.parameters.items() if is_distributed(each)}
        for name, parameter in sharded.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                is_scalar = isinstance(value, torch.Tensor) and value.is_cpu and value.dim() == 0
                if is_scalar or _is_number(value):
                    found[f"{self.which}/{name}/{key}"] = repr(value.item() if is_scalar else value)
        return found

    def targets(self, plain: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
        """New tensors for what a checkpoint holds of this optimizer: placed like their parameter, or else on the CPU.

        What belongs to no parameter here is left out.

        Args:
            plain: What `state` told.
            entries: All tensors of the checkpoint, by their names there.
        """
        targets: dict[str, torch.Tensor] = {}
        parameters = {**self.parameters, **{name: p for group in self._added(plain) for name, p in group.items()}}
        for name, values in plain.get("state", {}).items():
            if name not in parameters:
                continue
            parameter = parameters[name]
            for tag in tags(values):
                entry = entries[tag["name"]]
                if entry.shape == tuple(parameter.shape) != ():
                    targets[tag["name"]] = fresh(entry, parameter)
                else:
                    targets[tag["name"]] = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        return targets

    def restore(self, plain: Mapping[str, Any], fetch: Fetch) -> None:
        """Take back what `state` told.

        Args:
            plain: It.
            fetch: The tensors of `targets`, filled, and others.

        Raises:
            ValueError: It is of other parameter groups.
        """
        for added in self._added(plain):
            self.optimizer.add_param_group({"params": [*added.values()]})
            self.groups.append(added)
            self.parameters |= added
        if "whole" in plain:
            if [group["params"] for group in plain["groups"]] != [[*group] for group in self.groups]:
                raise ValueError(f"its {self.which} has other parameters, or the same in another order")
            self.optimizer.load_state_dict(unpacked(plain["whole"], fetch))
            return
        place = {name: number for number, name in enumerate(self.parameters)}
        state = {name: unpacked(each, fetch) for name, each in plain["state"].items() if name in place}
        groups = [
            {**unpacked({**saved, "params": None}, fetch), "params": [place[name] for name in group]}
            for saved, group in zip(self._fitting(plain["groups"]), self.groups, strict=True)
        ]
        is_torchs = type(self.optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict
        by_place = {place[name]: _hidden(values) if is_torchs else values for name, values in state.items()}
        unkeyed = unpacked(plain.get("unkeyed", {}), fetch)
        more = unpacked(plain.get("more", {}), fetch)
        self.optimizer.load_state_dict({"state": {**by_place, **unkeyed}, "param_groups": groups, **more})
        if is_torchs:
            self._put_exactly(state)

    def _added(self, plain: Mapping[str, Any]) -> list[dict[str, torch.nn.Parameter]]:
        """The groups that had been added on the way, to as many as there are here; none where they cannot be again."""
        if plain.get("set up") != len(self.groups):
            return []
        names = [group["params"] for group in plain["groups"][len(self.groups) :]]
        is_here = all(name in self._known and name not in self.parameters for each in names for name in each)
        return [{name: self._known[name] for name in each} for each in names] if is_here else []

    def _fitting(self, saved: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The saved group for each one here: the one with the same parameters, more or less.

        Parameters may have come or gone, because layers were frozen or unfrozen between two lives; a group may not.
        """
        fits = [
            [group for group in saved if not own.keys().isdisjoint(group["params"])] or _empty(saved, place) * (not own)
            for place, own in enumerate(self.groups)
        ]
        if len(saved) == len(self.groups) == 1:
            return [*saved]
        for index, (own, found) in enumerate(zip(self.groups, fits, strict=True)):
            if not found:
                raise ValueError(
                    f"it has no parameter group of {few([*own])}, which is group {index} of the {self.which} here: add "
                    "it with add_param_group when training has gone on"
                )
            if len(found) > 1 or sum(group is found[0] for each in fits for group in each) > 1:
                raise ValueError(f"its {self.which} has other parameter groups, divided anew for {few([*own])}")
        left = [group for group in saved if not any(group is each for found in fits for each in found)]
        if left:
            raise ValueError(
                f"its {self.which} has other parameter groups: one of {few(left[0]['params'])} is not here; add it "
                "with add_param_group before training goes on"
            )
        return [found[0] for found in fits]

    def _put_exactly(self, state: Mapping[str, Any]) -> None:
        """Undo what torch's load_state_dict does to values.

        It casts tensors to the type of their parameter, and takes apart whatever can be iterated over (torch 2.6-2.13).
        """
        for name, values in state.items():
            own = self.optimizer.state[self.parameters[name]] if isinstance(values, dict) else {}
            for key in own.keys() & values.keys():
                own[key] = _exact(values[key], own[key], self.parameters[name].device)

    def _checked(self, name: str, keep: Keep) -> Keep:
        parameter = self.parameters[name]
        if not is_distributed(parameter):
            return keep

        def checked(place: str, value: torch.Tensor) -> Any:
            is_like = is_distributed(value) and value.shape == parameter.shape
            if value.dim() and value.numel() > 1 and not is_like:
                raise SaveError(
                    f"An optimizer's state of a sharded parameter must be a DTensor of its shape or a scalar, but "
                    f"{place} is a {type(value).__name__} of shape {list(value.shape)}."
                )
            return keep(place, value)

        return checked


def tags(plain: Any) -> list[dict[str, Any]]:
    """What stands for the tensors inside of a packed value that lie in other files."""
    if isinstance(plain, dict):
        if plain.get(TAG) == "tensor":
            return [plain] if "name" in plain else []
        return [tag for each in plain.values() for tag in tags(each)]
    return [tag for each in plain for tag in tags(each)] if isinstance(plain, (list, tuple)) else []


def _empty(saved: Sequence[Mapping[str, Any]], place: int) -> list[Mapping[str, Any]]:
    """The group at this place, if it has no parameters either."""
    return [group for group in saved[place : place + 1] if not group["params"]]


class _Hidden:
    """What torch's load_state_dict is not to take apart."""


def _hidden(values: dict[Any, Any]) -> dict[Any, Any]:
    """A parameter's state, of which torch sees the tensors only; the rest is put there afterwards."""
    return {key: each if isinstance(each, torch.Tensor) else _Hidden() for key, each in values.items()}


def _exact(value: Any, put: Any, device: torch.device) -> Any:
    """The value itself, where torch has put it."""
    if isinstance(value, torch.Tensor):
        is_same = isinstance(put, torch.Tensor) and put.dtype is value.dtype
        return put if is_same else value.to(put.device if isinstance(put, torch.Tensor) else device)
    return _moved(value, device)


def _moved(value: Any, device: torch.device) -> Any:
    if type(value) in (list, tuple):
        return type(value)(_moved(each, device) for each in value)
    if type(value) is dict:
        return {key: _moved(each, device) for key, each in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _is_number(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_number, value))
    return isinstance(value, (bool, int, float))


def _is_place(key: Any, count: int) -> bool:
    return type(key) is int and 0 <= key < count


def _is_usual(given: Any, count: int) -> bool:
    """Whether a state dict has the form of torch's: by place of parameter, and groups of places."""
    if not isinstance(given, dict) or not isinstance(given.get("state"), dict):
        return False
    groups = given.get("param_groups")
    if not isinstance(groups, list) or not all(isinstance(group, dict) and "params" in group for group in groups):
        return False
    places = [place for group in groups for place in group["params"]]
    return places == [*range(count)] and all(isinstance(key, (int, str)) for key in given["state"])

"""Do all ranks hold what they should share, and is it finite? A checksum of every parameter says so at every save.

Computed on the tensor's device, without waiting for the result, and compared in the thread that saves. Buffers are
not compared, because DDP lets every rank have its own statistics; rank 0's are saved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import xxhash

from hpc.checkpoint.names import spoken
from hpc.checkpoint.shards import ALL_RANKS, Part
from hpc.errors import DivergedError, DriftError, HpcError

WORD_BYTES = 8
ROW_WORDS = 1024
"""Words are summed by row and by column, so that no copy of a large tensor is made in a wider type."""
LOW_BITS = (1 << 32) - 1
FACTOR = -7046029254386353131
"""2^64 over the golden ratio, as int64: neighbouring places get weights that have little in common."""
SHOWN = 3

Key = tuple[str, str, tuple[int, ...]]
"""Which ranks share it, name, offsets of the box."""


@dataclass(frozen=True)
class Survey:
    """Checksums of those parameters that lie on one device, at a step boundary.

    Args:
        keys: Of each one; the first is empty where no other rank has it.
        values: [number of keys, 2], int64: checksum, and 1 where all is finite.
    """

    keys: tuple[Key, ...]
    values: torch.Tensor


@dataclass(frozen=True)
class Statement:
    """What one rank says before a checkpoint is written.

    Args:
        problem: Why it has nothing to save.
        doubt: Since which step something was not finite, and the beginning of a sentence about it, or "".
        not_finite: Names of parameters.
        digests: Which ranks share it -> a digest of all that they share.
    """

    problem: HpcError | None
    doubt: tuple[int, str]
    not_finite: tuple[str, ...]
    digests: dict[str, str]


def survey(parts: Mapping[str, Part]) -> list[Survey]:
    """Start the computation on these parameters, without waiting for the GPU."""
    devices: defaultdict[torch.device, dict[str, Part]] = defaultdict(dict)
    for name, part in parts.items():
        if part.tensor.numel():
            devices[part.tensor.device][name] = part
    return [_survey(each) for each in devices.values()]


def _survey(parts: Mapping[str, Part]) -> Survey:
    keys = tuple((part.shared_by, name, part.offsets) for name, part in parts.items())
    tensors = [part.tensor for part in parts.values()]
    zero = torch.zeros((), dtype=torch.int64, device=tensors[0].device)
    sums = [checksum(part.tensor) if part.shared_by else zero for part in parts.values()]
    bounds = torch.cat([bound.reshape(1) for tensor in tensors for bound in _bounds(tensor)])
    finite = torch.isfinite(bounds).view(-1, 2).all(dim=1)
    return Survey(keys, torch.stack([torch.stack(sums), finite.to(torch.int64)], dim=1))


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """A scalar of int64 that another value at any place would have changed; the same on every kind of device."""
    flat = tensor.detach().contiguous().view(-1)
    if flat.storage_offset() * flat.element_size() % WORD_BYTES:
        flat = flat.clone()  # a view as int64 must begin at a multiple of 8 bytes
    octets = flat.view(torch.uint8)
    words = octets[: octets.numel() // WORD_BYTES * WORD_BYTES].view(torch.int64)
    count = words.numel() // ROW_WORDS * ROW_WORDS
    rows = words[:count].view(-1, ROW_WORDS)
    sums = torch.cat([rows.sum(1), rows.sum(0), words[count:], octets[words.numel() * WORD_BYTES :].to(torch.int64)])
    return (_mixed(sums) * _weights(sums.numel(), tensor.device)).sum()


def _mixed(sums: torch.Tensor) -> torch.Tensor:
    """One to one, and not linear: high bits reach low ones, or a change in them could be a multiple of 2 ** 64."""
    mixed = (sums ^ (sums >> 32 & LOW_BITS)) * FACTOR
    return (mixed ^ (mixed >> 32 & LOW_BITS)) * FACTOR


def _weights(count: int, device: torch.device) -> torch.Tensor:
    return _odd_numbers(1 << count.bit_length(), device)[:count]


@lru_cache(maxsize=64)
def _odd_numbers(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(1, count + 1, device=device) * FACTOR | 1


def _bounds(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and greatest element; NaN where there is one."""
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    elif tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()  # torch cannot compare numbers of eight bits (2.6-2.13)
    low, high = torch.aminmax(tensor) if tensor.is_floating_point() else (tensor.new_zeros(()),) * 2
    return low.float() if not low.is_floating_point() else low, high.float() if not high.is_floating_point() else high


@dataclass(frozen=True)
class Evidence:
    """All that a rank knows of what it shares, once its surveys can be read.

    Args:
        values: Key -> checksum or text.
        not_finite: Names of parameters.
    """

    values: dict[Key, int | str]
    not_finite: tuple[str, ...]

    def digests(self) -> dict[str, str]:
        """One for each set of ranks that share something."""
        shared: defaultdict[str, list[str]] = defaultdict(list)
        for (ranks, name, offsets), value in sorted(self.values.items()):
            shared[ranks].append(f"{name} {offsets} {value}")
        return {ranks: xxhash.xxh3_128_hexdigest("\n".join(lines).encode()) for ranks, lines in shared.items()}


def evidence(surveys: Iterable[Survey], settings: Mapping[str, str]) -> Evidence:
    """Read what was computed; waits for the device.

    Args:
        surveys: Of all parameters.
        settings: Name -> value of what all ranks must have alike besides.
    """
    values: dict[Key, int | str] = {(ALL_RANKS, name, ()): value for name, value in settings.items()}
    not_finite: list[str] = []
    for each in surveys:
        for key, (total, is_finite) in zip(each.keys, each.values.tolist(), strict=True):
            if key[0]:
                values[key] = total
            if not is_finite:
                not_finite.append(key[1])
    return Evidence(values, tuple(not_finite))


def verdict(statements: Sequence[Statement], step: int) -> HpcError | None:
    """What keeps the ranks from saving, in the words of the first that knows of something; no comparison yet."""
    for said in statements:
        if said.problem is not None:
            return said.problem
    nothing = f"nothing of step {step} was saved"
    doubts = [(*said.doubt, rank) for rank, said in enumerate(statements) if said.doubt[1]]
    if doubts:
        _, doubt, rank = min(doubts)  # a loss that is NaN on one rank is NaN on all of them in the next step
        where = f" on rank {rank}" if len(statements) > 1 else ""
        return DivergedError(
            f"{doubt}{where}; the last checkpoint is from before, and {nothing}: lower the learning rate or clip "
            "gradients in a new run_dir, or take the name of a logged value out of runtime.must_be_finite."
        )
    for rank, said in enumerate(statements):
        if said.not_finite:
            names = ", ".join(spoken(name) for name in said.not_finite[:SHOWN])
            more = len(said.not_finite) - SHOWN
            return DivergedError(
                f"Training has diverged: {names}{f' and {more} more' if more > 0 else ''} must be finite, but is not "
                f"on rank {rank}; {nothing} (a constant like -inf belongs in a buffer)."
            )
    return None


def disagree(statements: Sequence[Statement]) -> bool:
    """Whether ranks that share something have other digests of it."""
    seen: dict[str, str] = {}
    return any(
        seen.setdefault(ranks, digest) != digest for said in statements for ranks, digest in said.digests.items()
    )


def difference(found: Sequence[Mapping[Key, int | str]], step: int) -> DriftError | None:
    """The sentence about the first thing that ranks hold differently; None when only the digests were not comparable.

    Args:
        found: By rank.
        step: Optimizer steps taken.
    """
    ranks_of: defaultdict[Key, defaultdict[int | str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for rank, values in enumerate(found):
        for key, value in values.items():
            ranks_of[key][value].append(rank)
    different = [key for key, values in ranks_of.items() if len(values) > 1]
    if not different:
        return None
    settings = [key for key in different if isinstance(next(iter(ranks_of[key])), str)]
    name = (settings or different)[0]
    held = ranks_of[name]
    each = [
        f"{value if name in settings else 'one value' if number == 0 else 'another'} on {_of(ranks)}"
        for number, (value, ranks) in enumerate(held.items())
    ]
    more = f" ({len(different) - 1} more differ)" if len(different) > 1 else ""
    return DriftError(
        f"All ranks must hold the same {spoken(name[1])}, but at step {step} it is {' and '.join(each)}{more}; "
        "nothing of that step was saved: look for what ranks do differently, such as layers that are unfrozen on the "
        "way, calls past the prepared model, parameters without a gradient, learning rates that follow a rank's own "
        "loss, batches that one leaves out."
    )


def _of(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}"

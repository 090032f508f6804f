"""What ranks should share is compared before anything is committed, and none of it is anything but finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpc.checkpoint.drift import ROW_WORDS, checksum
from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from hpc.errors import ConfigurationError, DivergedError, DriftError
from tests.checkpoint.test_saving import every_two_steps, saved, train
from tests.support.thread_ranks import ThreadRank, on_ranks

CHANGE = Callable[[int, nn.Module, torch.optim.Optimizer], dict[str, Any] | None]


def state() -> TrainingState:
    model = nn.Sequential(nn.Linear(40, 60), nn.BatchNorm1d(60), nn.Linear(60, 2))
    for number, tensor in enumerate(model.parameters()):
        tensor.data.copy_(torch.arange(tensor.numel()).view(tensor.shape) + number)
    return TrainingState([model], [torch.optim.AdamW(model.parameters())], {})


def outcomes(directory: Path, change: CHANGE, size: int = 3) -> list[Any]:
    """What a save ends with on each rank when some of them hold something else."""
    store = CheckpointStore(directory / "checkpoints")
    store.acquire()

    def program(group: ThreadRank) -> Any:
        mine = state()
        with torch.no_grad():
            more = change(group.world.rank, mine.models[0], mine.optimizers[0]) or {}
        return commit(store, group, snapshot(mine, 7, group.world.rank, {}, {}, **more))

    found = on_ranks(size, program)
    assert len({(type(each), str(each)) for each in found}) == 1
    assert bool(store.list()) is not isinstance(found[0], Exception)
    return found


def test_ranks_that_are_alike_commit_and_each_has_its_own_position(tmp_path: Path) -> None:
    outcomes(tmp_path, lambda rank, *_: {"position": f"of {rank}"})
    for size in (1, 2, 4):
        store = CheckpointStore(tmp_path / "checkpoints")

        def resumed(group: ThreadRank, store: CheckpointStore = store) -> Any:
            return load_latest(store, state(), group, print)

        for each in on_ranks(size, resumed):
            assert [rank["position"] for rank in each.trainer["ranks"]] == ["of 0", "of 1", "of 2"]


def _one(rank: int, model: nn.Module, _: Any) -> None:
    model.get_parameter("0.weight")[59, 39] += 1e-3 * (rank == 1)


def _swapped(rank: int, model: nn.Module, _: Any) -> None:
    weight = model.get_parameter("2.weight")
    if rank == 2:
        weight.copy_(weight.flip(1))


def _frozen(rank: int, model: nn.Module, _: Any) -> None:
    model.get_parameter("1.bias").requires_grad_(False).add_(rank == 0)


def _rate(rank: int, _model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] = 0.1 / (1 + (rank == 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_one, "the same 0.weight, but at step 7 it is one value on ranks 0, 2 and another on rank 1; nothing of"),
        (_swapped, "the same 2.weight, but at step 7 it is one value on ranks 0, 1 and another on rank 2"),
        (_frozen, "the same 1.bias, but at step 7 it is one value on rank 0 and another on ranks 1, 2"),
        (_rate, r"the same optimizer/groups\[0\]/lr, but at step 7 it is 0.1 on ranks 0, 2 and 0.05 on rank 1"),
    ],
)
def test_ranks_that_differ_say_where_and_commit_nothing(tmp_path: Path, change: CHANGE, words: str) -> None:
    error = outcomes(tmp_path, change)[0]
    assert isinstance(error, DriftError)
    assert error.exit_code == 80
    with pytest.raises(DriftError, match=words):
        raise error


def test_statistics_of_batches_are_each_ranks_own(tmp_path: Path) -> None:
    def change(rank: int, model: nn.Module, _: Any) -> None:
        model.get_buffer("1.running_mean").fill_(rank)

    outcomes(tmp_path, change)


def _not_a_number(rank: int, model: nn.Module, _: Any) -> None:
    model.get_parameter("1.weight")[3] = math.nan if rank == 1 else 1.0


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (_not_a_number, DivergedError, "1.weight must be finite, but is not on rank 1; nothing of step 7"),
        (lambda rank, *_: {"doubt": lambda: (6, "loss is nan" * (rank == 2))}, DivergedError, "loss is nan on rank 2"),
        (lambda rank, *_: {"position": [print] * rank}, ConfigurationError, r"rank 1/position\[0\] is of type builtin"),
    ],
)  # fmt: skip
def test_what_one_rank_has_against_a_save_all_ranks_raise(
    tmp_path: Path, change: CHANGE, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        raise outcomes(tmp_path, change)[0]


SIZES = st.sampled_from([1, 3, 8, 1000, 8 * ROW_WORDS, 8 * ROW_WORDS * 3 + 13])
DTYPES = st.sampled_from([torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.bool])


@given(SIZES, DTYPES, st.data())
def test_a_checksum_notices_every_place(size: int, dtype: torch.dtype, data: st.DataObject) -> None:
    tensor = (torch.arange(size) % 97).to(dtype)
    before = int(checksum(tensor))
    assert int(checksum(tensor.clone().view(1, -1))) == before
    place = data.draw(st.integers(0, size - 1))
    other = tensor.clone()
    other[place] = other[place] == 0
    assert torch.equal(other, tensor) == (int(checksum(other)) == before)
    second = data.draw(st.integers(0, size - 1))
    swapped = tensor.clone()
    swapped[[place, second]] = tensor[[second, place]]
    assert torch.equal(swapped, tensor) == (int(checksum(swapped)) == before)


def test_a_checksum_notices_the_highest_bits_alone() -> None:
    """2.0 and 0.0 differ by 2 ** 62 in a word of two numbers, and x and -x by 2 ** 63."""
    tensor = (torch.arange(8 * ROW_WORDS) % 97).float()
    before = int(checksum(tensor))
    for place in range(1, 2000, 2):
        for value in (0.0, -tensor[place]):
            other = tensor.clone()
            other[place] = value
            assert torch.equal(other.view(torch.int32), tensor.view(torch.int32)) == (int(checksum(other)) == before)
    signs = tensor.new_ones(4).repeat(2 * ROW_WORDS)
    signs[1::8] = -1
    swapped = signs.clone()
    swapped[:8] = signs[:8].view(2, 4).flip(0).reshape(-1)
    assert int(checksum(signs)) != int(checksum(swapped))


def test_a_checksum_does_not_ask_how_a_tensor_lies_in_memory() -> None:
    tensor = torch.randn(64, 33)
    assert int(checksum(tensor.t().contiguous().t())) == int(checksum(tensor))
    assert int(checksum(torch.cat([torch.zeros(1), tensor.view(-1)])[1:].view(64, 33))) == int(checksum(tensor))


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_run_whose_weights_are_not_finite_ends_whatever_is_done_about_failed_saves(
    tmp_path: Path, on_error: str
) -> None:
    def at_step(runtime: Any, step: int) -> None:
        if step == 4:
            runtime.training_state.models[0].weight.data[0, 0] = math.nan

    with pytest.raises(DivergedError, match="weight must be finite, but is not on rank 0; nothing of step 4"):
        train(every_two_steps(tmp_path, on_error=on_error, asynchronous=False), at_step)
    assert saved(tmp_path) == [2]

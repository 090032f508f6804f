"""Loaders on two ranks: the same on both or refused on both, and together what one rank would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Sampler, SubsetRandomSampler, WeightedRandomSampler

from hpc import Runtime
from hpc.errors import ConfigurationError
from hpc.launch.notebook import notebook_launcher
from tests.data.test_worlds import Indexed, config

pytestmark = pytest.mark.gloo


def refused(runtime: Runtime, loader: DataLoader[Any]) -> str:
    try:
        runtime.prepare(loader)
    except ConfigurationError as error:
        return str(error)
    return "taken"


class RankAware(Sampler[int]):
    """As somebody writes it who deals by himself, and then forgets the number of ranks."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, 8, 2))


def unlike_loaders(runtime: Runtime) -> dict[str, list[str]]:
    """What every rank is told of loaders that are not the same on both."""
    rank = runtime.process_index
    loaders: dict[str, DataLoader[Any]] = {
        "lengths": DataLoader(Indexed(8 + rank), batch_size=2),
        "batch sizes": DataLoader(Indexed(8), batch_size=2 + rank),
        "subsets": DataLoader(Indexed(8), batch_size=2, sampler=SubsetRandomSampler([rank, 5])),
        "weights": DataLoader(Indexed(8), batch_size=2, sampler=WeightedRandomSampler([1.0, 1.0 + rank], 4)),
        "own": DataLoader(Indexed(8), batch_size=2, sampler=RankAware(rank)),
        "one refuses": DataLoader(Indexed(8 * rank), batch_size=2),
        "shuffled": DataLoader(Indexed(8), batch_size=2, shuffle=bool(rank)),
    }
    return {name: runtime.group.all_gather(refused(runtime, loader)) for name, loader in loaders.items()}


def sampled(runtime: Runtime, kind: str) -> list[int]:
    """Two passes with a sampler, and what all ranks saw in them."""
    sampler: Any = WeightedRandomSampler([1.0] * 8, 5, replacement=kind == "drawn")
    if kind == "batches":
        loader: DataLoader[Any] = DataLoader(Indexed(8), batch_sampler=[[0, 1, 2], [3], [4, 5]])
    else:
        loader = DataLoader(Indexed(8), batch_size=2, sampler=sampler)
    prepared = runtime.prepare(loader)
    return [int(each) for _ in range(2) for batch in prepared for each in runtime.gather_for_metrics(batch["index"])]


SAMPLED = ("drawn", "listed", "batches")


def ask(directory: Path) -> dict[str, Any]:
    with Runtime(config(directory)) as runtime:
        return {"unlike": unlike_loaders(runtime), "sampled": {kind: sampled(runtime, kind) for kind in SAMPLED}}


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return notebook_launcher(ask, (tmp_path_factory.mktemp("two"),), num_processes=2)


UNLIKE = {
    "lengths": "number of samples is 8 on rank 0 and 9 on rank 1: give every rank the whole data set",
    "batch sizes": "batch_size is 2 on rank 0 and 3 on rank 1",
    "subsets": "its order is",
    "weights": "its order is",
    "own": "its order is",
    "shuffled": "its order is",
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_loader_that_is_not_the_same_on_all_ranks_is_refused_on_all(name: str, two_ranks: Any) -> None:
    first, second = two_ranks["unlike"][name]
    assert first == second
    assert UNLIKE[name] in first


def test_what_one_rank_refuses_all_refuse(two_ranks: Any) -> None:
    first, second = two_ranks["unlike"]["one refuses"]
    assert "has an empty data set" in first
    assert second == f"On rank 0: {first}"


@pytest.mark.parametrize("kind", SAMPLED)
def test_two_ranks_see_what_one_would_have_seen(kind: str, two_ranks: Any, tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        assert two_ranks["sampled"][kind] == sampled(runtime, kind)

"""Another number of ranks: the same samples in the same steps, every sample once in a metric, and nobody waits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from hpc import Runtime
from hpc.connect.process_group import close_process_group
from hpc.errors import ConfigurationError
from hpc.launch.notebook import notebook_launcher

pytestmark = pytest.mark.gloo
LENGTH, STEPS = 53, 12


class Indexed(Dataset[dict[str, torch.Tensor]]):
    """Sample i is a function of i."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        point = torch.randn(4, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
        return {"index": torch.tensor(index), "point": point}


class Counting(IterableDataset[int]):
    """Gives start, start + 1, ... and remembers how far it is."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length, self.given = start, length, 0

    def __iter__(self) -> Iterator[int]:
        while self.given < self.length:
            self.given += 1
            yield self.start + self.given - 1
        self.given = 0

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]


def config(directory: Path, accumulation_steps: int = 1) -> dict[str, Any]:
    strategy = {"accumulation_steps": accumulation_steps}
    return {"run_dir": str(directory), "runtime": {"device": "cpu"}, "strategy": strategy, "seed": 3}


def train(directory: Path, steps: int, accumulation_steps: int, batch_size: int = 2) -> tuple[list[set[int]], Any]:
    """Train in double precision, where only the order of sums may differ; returns each step's samples, and weights."""
    seen: list[set[int]] = []
    with Runtime(config(directory, accumulation_steps)) as runtime:
        model = nn.Linear(4, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loader = DataLoader(Indexed(), batch_size=batch_size, shuffle=True)
        model, optimizer, loader = runtime.prepare(model, optimizer, loader)
        step = -1
        for batch in runtime.steps(loader, total=steps):
            seen += [set()] if runtime.step != step else []
            step = runtime.step
            seen[-1].update(runtime.gather(batch["index"]).tolist())
            with runtime.accumulate():
                runtime.backward((model(batch["point"]) ** 2).mean())
                optimizer.step()
                optimizer.zero_grad()
        weights = next(runtime.unwrap(model).parameters()).detach()
    return seen, weights


def evaluate(runtime: Runtime, length: int) -> dict[str, Any]:
    """What gather_for_metrics makes of one pass, and how many batches this rank took."""
    batches = [
        runtime.gather_for_metrics({"index": batch["index"], "tokens": batch["point"].reshape(-1, 1).sign()})
        for batch in runtime.prepare(DataLoader(Indexed(length), batch_size=4))
    ]
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in ("index", "tokens")}
    return {"index": joined["index"].tolist(), "tokens": joined["tokens"].tolist(), "batches": len(batches)}


def evaluate_iterable(runtime: Runtime, lengths: tuple[int, int]) -> list[int]:
    """One pass over as many samples as this rank has."""
    rank = runtime.process_index
    loader = runtime.prepare(DataLoader(Counting(100 * rank, lengths[rank]), batch_size=4))
    return [int(index) for batch in loader for index in runtime.gather_for_metrics(batch)]


def evaluate_sharded(directory: Path) -> dict[str, Any]:
    """A model that only all ranks together can call, over a length that leaves one of them without samples."""
    torch.manual_seed(0)
    plain = nn.Linear(4, 3).double()
    with Runtime({**config(directory), "strategy": {"name": "fsdp"}}) as runtime, torch.no_grad():
        expected = plain(torch.stack([Indexed(9)[index]["point"] for index in range(9)]))
        model, loader = runtime.prepare(plain, DataLoader(Indexed(9), batch_size=4))
        found = torch.cat([runtime.gather_for_metrics(model(batch["point"])) for batch in loader])
    return {"found": found, "expected": expected}


def train_iterable(runtime: Runtime, loader: DataLoader[int], steps: int) -> list[int]:
    """The samples that all ranks saw, rank by rank within a step."""
    prepared = runtime.prepare(loader)
    return [int(index) for batch in runtime.steps(prepared, total=steps) for index in runtime.gather(batch)]


def counting_loader(kind: str, rank: int) -> DataLoader[int]:
    if kind == "torchdata with workers":
        return cast("DataLoader[int]", StatefulDataLoader(Counting(100 * rank, 11), batch_size=2, num_workers=1))
    loader: type[DataLoader[int]] = StatefulDataLoader if kind == "torchdata" else DataLoader
    return loader(Counting(100 * rank, 11), batch_size=2)


KINDS = ("torchdata", "torchdata with workers", "torch")
LENGTHS = (1, 4, 7, 8, 9, 16, 17)
UNEVEN = ((9, 2), (3, 8), (0, 5), (5, 0), (0, 0))


def on_two_ranks(directory: Path) -> dict[str, Any]:
    """Everything that needs two ranks, in one launch; returns rank 0's."""
    results: dict[str, Any] = {"resumed": {}}
    for name, accumulation_steps in (("one", 4), ("four", 1)):
        results["resumed"][name] = train(directory / name, STEPS, accumulation_steps)
    with Runtime(config(directory / "evaluation")) as runtime:
        results["passes"] = {length: evaluate(runtime, length) for length in LENGTHS}
        results["batches"] = runtime.group.all_gather({n: each["batches"] for n, each in results["passes"].items()})
        results["uneven"] = {lengths: evaluate_iterable(runtime, lengths) for lengths in UNEVEN}
        with contextlib.redirect_stdout(io.StringIO()) as results["printed"]:
            runtime.print_in_order("this is rank", runtime.process_index)
    results["sharded"] = evaluate_sharded(directory / "sharded")
    for kind in KINDS:
        parts = []
        for name, steps in (("whole", 9), ("parts", 4), ("parts", 9)):
            with Runtime(config(directory / kind / name)) as runtime:
                parts.append(train_iterable(runtime, counting_loader(kind, runtime.process_index), steps))
        results[kind] = parts
    return results


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@pytest.fixture(scope="module")
def uninterrupted(directory: Path) -> Iterator[tuple[list[set[int]], Any]]:
    yield train(directory / "golden", STEPS, accumulation_steps=4)
    close_process_group()


@pytest.fixture(scope="module")
def two_ranks(directory: Path) -> Any:
    """Half of the steps on one rank and on four ranks, then the rest on two."""
    train(directory / "one", STEPS // 2, accumulation_steps=4)
    notebook_launcher(train, (directory / "four", STEPS // 2, 1), num_processes=4)
    return notebook_launcher(on_two_ranks, (directory,), num_processes=2)


@pytest.mark.parametrize("first_life", ["one", "four"])
def test_a_run_goes_on_with_another_number_of_ranks_as_if_nothing_happened(
    first_life: str, two_ranks: Any, uninterrupted: tuple[list[set[int]], Any]
) -> None:
    samples, weights = uninterrupted
    resumed_samples, resumed_weights = two_ranks["resumed"][first_life]
    assert resumed_samples == samples[STEPS // 2 :]
    torch.testing.assert_close(resumed_weights, weights, rtol=1e-12, atol=1e-12)


def test_a_world_that_cannot_keep_the_global_batch_is_refused(two_ranks: Any, directory: Path) -> None:
    del two_ranks
    with pytest.raises(ConfigurationError, match=r"stay the 8 samples .* 1 rank\(s\) × 3 sample\(s\) = 3, and 8 / 3"):
        train(directory / "four", STEPS + 1, accumulation_steps=1, batch_size=3)


@pytest.mark.parametrize("length", LENGTHS)
def test_gathered_metrics_hold_every_sample_once_in_order(length: int, two_ranks: Any) -> None:
    found = two_ranks["passes"][length]
    points = torch.cat([Indexed(length)[index]["point"] for index in range(length)])
    assert found["index"] == list(range(length))
    assert found["tokens"] == points[:, None].sign().tolist()


def test_all_ranks_take_equally_many_batches(two_ranks: Any) -> None:
    first, second = two_ranks["batches"]
    assert first == second == {length: -(-length // 8) for length in LENGTHS}


@pytest.mark.parametrize("lengths", UNEVEN)
def test_ranks_with_fewer_or_no_batches_keep_nobody_waiting(lengths: tuple[int, int], two_ranks: Any) -> None:
    expected = [100 * rank + number for rank in (0, 1) for number in range(lengths[rank])]
    assert sorted(two_ranks["uneven"][lengths]) == expected


def test_ranks_print_one_after_the_other(two_ranks: Any) -> None:
    assert two_ranks["printed"].getvalue() == "this is rank 0\nthis is rank 1\n"


def test_a_sharded_model_is_evaluated_on_every_sample_once(two_ranks: Any) -> None:
    torch.testing.assert_close(two_ranks["sharded"]["found"], two_ranks["sharded"]["expected"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_iterable_resumes_on_every_rank_where_it_was(kind: str, two_ranks: Any) -> None:
    whole, first, second = two_ranks[kind]
    assert first + second == whole
    assert whole[:8] == [0, 1, 100, 101, 2, 3, 102, 103]


def test_an_iterable_is_refused_on_another_number_of_ranks(two_ranks: Any, directory: Path) -> None:
    del two_ranks
    with (
        Runtime(config(directory / "torch" / "parts", 2)) as runtime,
        pytest.raises(ConfigurationError, match=r"as many ranks as saved it \(2\), because .* this world has 1"),
    ):
        train_iterable(runtime, counting_loader("torch", 0), steps=20)


class Forgetful(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(9))


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(Forgetful(), 2), "Forgetful with num_workers=0 is not: use torchdata's StatefulDataLoader"),
        (DataLoader(Counting(0, 9), 2, num_workers=1), "Counting with num_workers=1 is not"),
        (DataLoader(Counting(0, 0), 2), "must give rank 0 a batch to train on, but gave none"),
        (DataLoader(Counting(0, 9), batch_size=None), "must have a batch_size"),
    ],
)
def test_an_iterable_that_cannot_be_trained_on_is_refused(tmp_path: Path, loader: Any, words: str) -> None:
    with Runtime(config(tmp_path)) as runtime, pytest.raises(ConfigurationError, match=words):
        train_iterable(runtime, loader, steps=3)


def test_an_iterable_without_a_state_can_be_evaluated(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        assert [batch.tolist() for batch in runtime.prepare(DataLoader(Forgetful(), 4))] == [
            [0, 1, 2, 3], [4, 5, 6, 7], [8],
        ]  # fmt: skip


def test_a_value_without_a_row_for_each_sample_is_no_metric(tmp_path: Path) -> None:
    with Runtime(config(tmp_path)) as runtime:
        for batch in runtime.prepare(DataLoader(Indexed(), 4)):
            with pytest.raises(ConfigurationError, match=r"each of the batch's \d samples, but got one of shape \(\)"):
                runtime.gather_for_metrics(batch["point"].mean())
        assert runtime.gather_for_metrics(torch.tensor(2.0)).tolist() == [2.0]

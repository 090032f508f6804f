"""A prepared loader is what it wraps: its attributes, its options, its passes."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore
from hpc.data.iterable import PreparedIterable, prepare_loader
from hpc.data.loader import PreparedLoader
from hpc.data.rows import CurrentRows
from hpc.errors import ConfigurationError
from hpc.world import resolve_world

DATA = list(range(10))
ALONE = ProcessGroup(
    resolve_world({}), torch.device("cpu"), SealedStore(torch.distributed.HashStore(), b""), words=None
)


def prepared(**options: Any) -> PreparedLoader:
    loader: DataLoader[Any] = DataLoader(**{"dataset": DATA, "batch_size": 3, **options})
    found = prepare_loader(loader, ALONE, 0, CurrentRows())
    assert isinstance(found, PreparedLoader)
    return found


def batches(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


class Stream(IterableDataset[int]):
    epochs: list[int]

    def __init__(self) -> None:
        self.epochs = []

    def __len__(self) -> int:
        return 5

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_a_prepared_loader_has_the_attributes_of_a_dataloader() -> None:
    own: DataLoader[int] = DataLoader(DATA, batch_size=3, drop_last=True, pin_memory=False)  # type: ignore[arg-type]
    loader = prepare_loader(own, ALONE, 0, CurrentRows())
    assert isinstance(loader, DataLoader)
    names = {name for name in vars(own) if not name.startswith("_")}
    assert {name for name in names if getattr(loader, name) is not getattr(own, name)} == set()
    assert loader.multiprocessing_context is None
    assert not hasattr(loader, "no_such_thing")


def test_options_can_be_set_where_torch_lets_them_be() -> None:
    loader = prepared()
    loader.collate_fn = lambda samples: torch.tensor(samples) * 2
    assert batches(loader)[0] == [0, 2, 4]
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 5


def test_a_loader_is_prepared_once() -> None:
    loader = prepared()
    assert prepare_loader(loader, ALONE, 0, CurrentRows()) is loader


def test_a_prepared_loader_is_not_copied() -> None:
    with pytest.raises(ConfigurationError, match="cannot be copied or pickled, because it belongs to this rank"):
        copy.copy(prepared())


def test_drop_last_leaves_out_what_is_short() -> None:
    loader = prepared(drop_last=True)
    assert batches(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert (len(loader), loader.samples_per_epoch) == (3, 9)
    assert batches(loader.epoch_stream(0, 6)) == [[6, 7, 8]]
    assert [len(batch) for batch in itertools.islice(loader.stream(0), 5)] == [3] * 5


def test_drop_last_must_leave_something() -> None:
    loader = prepared(batch_size=20, drop_last=True)
    with pytest.raises(ConfigurationError, match=r"drop_last=True .* 1 rank\(s\) × 20 sample\(s\) = 20, and .* 10"):
        list(loader)


def test_each_pass_is_shuffled_anew_and_again_alike() -> None:
    passes = [batches(loader) for loader in [prepared(shuffle=True)] * 3]
    assert all(sorted([*itertools.chain(*each)]) == DATA for each in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]
    loader = prepared(shuffle=True)
    assert [batches(loader) for _ in range(3)] == passes
    loader.set_epoch(1)
    assert [batches(loader), batches(loader)] == passes[1:]
    assert batches(loader.epoch_stream(2, 0)) == passes[2]


def test_passes_and_training_go_through_the_same_order() -> None:
    loader = prepared(shuffle=True)
    trained = [index for batch in itertools.islice(loader.stream(0), 10) for index in batch.tolist()]
    assert trained[:20] == [*itertools.chain(*batches(loader) + batches(loader))]


def test_without_shuffling_every_pass_lies_as_it_lies() -> None:
    loader = prepared()
    assert batches(loader) == batches(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("start", [0, 3, 4, 9, 10])
def test_an_epoch_goes_on_in_its_middle(start: int) -> None:
    loader = prepared(shuffle=True)
    whole = [*itertools.chain(*batches(loader.epoch_stream(5, 0)))]
    assert [*itertools.chain(*batches(loader.epoch_stream(5, start)))] == whole[start:]


class WhoReads(Dataset[int]):
    """Which process reads a sample."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def test_workers_that_persist_are_kept_from_pass_to_pass() -> None:
    loader = prepared(dataset=WhoReads(), num_workers=1, persistent_workers=True)
    first = {pid for batch in batches(loader) for pid in batch}
    broken_off = next(iter(loader)).tolist()  # its iterator is closed at once
    assert first == {*broken_off} == {pid for batch in batches(loader) for pid in batch} != {os.getpid()}
    outer = iter(loader)
    assert next(outer).tolist() == [*first] * 3
    assert first.isdisjoint(next(iter(loader)).tolist())  # a pass inside another disturbs it in nothing
    assert next(outer).tolist() == [*first]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"number of samples": 12}, "the number of samples was 12 and is 10: bring back what there was"),
        ({"seed of the order": 4}, "the seed of the order was 4 and is 0"),
    ],
)
def test_a_resumed_run_must_find_its_data_as_it_was(before: dict[str, int], words: str) -> None:
    loader = prepared()
    with pytest.raises(ConfigurationError, match=words):
        loader.stream(3, [{**loader.position(), **before}])
    for position in (loader.position(), None):  # None: checkpoints of before this was compared
        assert next(loader.stream(3, [position])).tolist() == [3, 4, 5]


def test_a_data_set_must_stay_as_long_as_it_was() -> None:
    data = [*DATA]
    loader: Any = prepare_loader(DataLoader(data, batch_size=3), ALONE, 0, CurrentRows())  # type: ignore[arg-type]
    for length in (12, 8):
        data[:] = range(length)
        for use in (list, PreparedLoader.position, PreparedLoader.check):
            with pytest.raises(ConfigurationError, match=f"it had 10 and has {length}: prepare another loader"):
                use(loader)


class ManyAtOnce(Dataset[Any]):
    """As a data set of Hugging Face: it takes a list, and lists of samples in another way."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any) -> Any:
        return {"rows": index}

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [{"row": index} for index in indices]


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_batch_size_the_data_set_is_asked_for_one_entry_at_a_time(workers: int) -> None:
    turns = BatchSampler(SequentialSampler(ManyAtOnce()), 2, drop_last=False)
    own = DataLoader(ManyAtOnce(), sampler=turns, batch_size=None, num_workers=workers)
    assert [*prepare_loader(own, ALONE, 0, CurrentRows())] == [*own]


class Doubling(DataLoader[Any]):
    def __iter__(self) -> Any:
        return (2 * batch for batch in super().__iter__())


class Growing(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(DATA, num_workers=1, in_order=False), "must have in_order=True"),  # type: ignore[arg-type]
        (Doubling(DATA), "Doubling has an __iter__ of its own: do what it does in collate_fn"),  # type: ignore[arg-type]
        (Doubling(Stream()), "Doubling has an __iter__ of its own"),
        (DataLoader(Growing()), r"a Growing must say how many entries it has"),
    ],
)
def test_what_cannot_be_honoured_is_refused(loader: DataLoader[Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        prepare_loader(loader, ALONE, 0, CurrentRows())


def test_an_iterable_has_the_attributes_too_and_is_told_the_epoch_of_each_pass() -> None:
    own: DataLoader[int] = DataLoader(Stream(), batch_size=2)
    loader = prepare_loader(own, ALONE, 0, CurrentRows())
    assert isinstance(loader, PreparedIterable)
    assert (loader.dataset, loader.batch_size, loader.collate_fn, len(loader)) == (
        own.dataset, 2, own.collate_fn, 3,
    )  # fmt: skip
    assert batches(loader) == batches(loader) == batches(own) == [[0, 1], [2, 3], [4]]
    loader.set_epoch(7)
    list(loader)
    assert isinstance(own.dataset, Stream)
    assert own.dataset.epochs == [0, 1, 7]


def test_epochs_need_a_map_style_data_set() -> None:
    loader = prepare_loader(DataLoader(Stream(), batch_size=2), ALONE, 0, CurrentRows())
    for ask in (lambda: loader.samples_per_epoch, lambda: loader.epoch_stream(0, 0)):
        with pytest.raises(ConfigurationError, match="epochs takes a loader over a map-style data set"):
            ask()

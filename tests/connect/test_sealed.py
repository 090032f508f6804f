"""What a stranger writes into the store, or into the ranks' sockets, is a sentence and never an action."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore, PrefixStore

from hpc.connect.process_group import ProcessGroup
from hpc.connect.sealed import SealedStore, SealedWords
from hpc.errors import WorldError
from hpc.stop.agreement import all_end_here
from tests.support.checkpoint_ranks import in_world

NOT_OURS = "must be written by one of them, but is not: another program on this machine or network interferes"


class Exploit:
    """Whoever opens its pickle leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def store() -> SealedStore:
    return SealedStore(HashStore(), b"the ranks' key")


@pytest.mark.parametrize("value", ["text", "", None, 7, [1, {"a": 0.1}], "\N{SNOWMAN}\n", "x" * 100_000])
def test_what_a_rank_writes_is_read_as_it_was(store: SealedStore, value: Any) -> None:
    store.set("name", value)
    store.set_all({"one": value, "two": [value]})
    assert store.get("name") == value
    assert store.get_all(["one", "two"]) == [value, [value]]
    assert store.propose("name", "another") == store.propose("new", value) == value


@pytest.mark.parametrize("forged", ["now", "0" * 64 + '"now"', "é" * 40, '{"a": 1}'])
def test_what_a_stranger_writes_is_a_sentence(store: SealedStore, forged: str) -> None:
    store.plain.set("name", forged)
    for read in (store.get, lambda name: store.propose(name, "ours"), lambda name: store.get_all([name])):
        with pytest.raises(WorldError, match=f"^name in the ranks' store {NOT_OURS}"):
            read("name")


def test_a_word_counts_under_its_own_name_key_and_value_only(store: SealedStore) -> None:
    store.set("name", "value")
    sealed = store.plain.get("name").decode()
    for name, text in (("other", sealed), ("name", sealed[:-2] + 'f"'), ("name", sealed[:64])):
        store.plain.set(name, text)
        with pytest.raises(WorldError, match=NOT_OURS):
            store.get(name)
    SealedStore(store.plain, b"of an earlier meeting").set("name", "value")
    with pytest.raises(WorldError, match=NOT_OURS):
        store.get("name")


def test_all_end_where_all_ask_and_a_stranger_cannot_ask_for_them(
    store: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda rank: all_end_here(store, rank, 3, "here"), range(3))) == [True] * 3
    monkeypatch.setattr("hpc.stop.agreement.EARLY_SECONDS", 0.1)
    store.count("there/asked", 2)
    assert not all_end_here(store, 0, 3, "there")
    store.count("else/asked", 2)
    store.plain.set("else/asked/1", "now")
    store.plain.set("else/asked/2", "now")
    with pytest.raises(WorldError, match=NOT_OURS):
        all_end_here(store, 0, 3, "else")


@pytest.mark.gloo
@pytest.mark.parametrize("way", ["broadcast", "all_gather", "gather"])
def test_no_pickle_of_a_stranger_is_opened(tmp_path: Path, way: str) -> None:
    """Rank 0 of the group has not the secret: it says what torch's own collectives would have opened."""
    trap = tmp_path / "opened"

    def program(group: ProcessGroup) -> None:
        assert group.side is not None
        if group.world.rank == (1 if way == "gather" else 0):
            stranger = SealedWords(group.side, b"guessed", "side")
            stranger._opened = lambda *_: None  # type: ignore[method-assign] # it does not fall into its own trap
            getattr(stranger, way)(Exploit(trap))
        else:
            with pytest.raises(WorldError, match="but hears a stranger: another program on this machine or network"):
                getattr(SealedWords(group.side, b"the ranks' key", "side"), way)("a word")

    in_world(2, program, tmp_path / "meeting")
    assert not trap.exists()
    with pytest.raises(FileNotFoundError):  # the trap would have worked
        pickle.loads(pickle.dumps(Exploit(trap / "missing" / "parents")))


@pytest.mark.gloo
def test_words_of_any_length_travel_and_none_can_be_said_twice(tmp_path: Path) -> None:
    def program(group: ProcessGroup) -> None:
        rank = group.world.rank
        for value in (None, "", b"x" * (rank * 100_000), {"rank": torch.full((3,), rank)}):
            assert [str(each) for each in group.all_gather(rank)] == ["0", "1", "2"]
            assert len(group.all_gather(value)) == 3
            assert len(group.gather(value)) == (0 if rank else 3)
        assert group.broadcast(f"rank {rank}") == "rank 0"
        words = group.words
        assert words is not None
        old = words._sealed("once")
        words._sealed = lambda value: old  # type: ignore[method-assign]  # noqa: ARG005
        words._turn += 1
        with pytest.raises(WorldError, match=rf"Rank {rank} must hear from rank 0, but hears a stranger"):
            words.all_gather("twice")

    in_world(3, program, tmp_path / "meeting")


@pytest.mark.gloo
def test_a_side_group_of_threads_keeps_its_own_turns(tmp_path: Path) -> None:
    def program(group: ProcessGroup) -> None:
        side = distributed.new_group(backend="gloo")
        beside = SealedWords(side, b"known to all", "beside")
        assert beside.all_gather(1) == [1, 1]
        assert group.all_gather(2) == [2, 2]
        assert beside.all_gather(3) == [3, 3]

    in_world(2, program, tmp_path / "meeting")


def test_an_earlier_attempts_words_lie_elsewhere(store: SealedStore) -> None:
    SealedStore(PrefixStore("attempt-0", store.plain), store.key).set("name", "old")
    assert not store.has("name")

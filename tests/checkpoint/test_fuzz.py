"""Whatever a manifest, trainer.pt or a file of tensors says: it is followed, or refused in one sentence.

More than 10,000 of them, alike in every run. What passes is checked in another way, too: whether every element
of every tensor lies in the files once.
"""

from __future__ import annotations

import io
import json
import math
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.manifest import ITEM_BYTES, OPENING, Manifest
from hpc.checkpoint.packing import packed
from hpc.checkpoint.reading import shown
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.tensors import DTYPES
from hpc.checkpoint.trainer import check_trainer, read_trainer
from hpc.checkpoint.unpacking import unpacked
from hpc.checkpoint.untrusted import parsed
from hpc.cli import main
from hpc.errors import LoadError
from tests.checkpoint.test_roundtrip import VALUES, Holder
from tests.support.saves import Alone, Life

TIMES = 20
EXAMPLES = {"manifests": 6000, "bytes of manifests": 1500, "values": 2500, "bytes of trainer.pt": 600, "loads": 160}
MOST_BYTES = 64 << 20
COUNTED: dict[str, int] = {}

EVIL: list[Any] = [
    *(True, False, None, -1, 0, 1, 1.0, 0.5, 2, 3, 8, 2**31, 2**62, 2**63, -(2**63), 10**30, math.nan, math.inf, -0.0),
    *("", ".", "..", "../x", "/etc/passwd", "a/../b", "a\\b", "a\x00b", "\x1b[2J", "\ud800", "trainer.pt"),
    *("manifest.json", "model.safetensors", "model/weight", "F32", "F64", "F4", "range", "set", "cuda", "bytes"),
    *([], [[]], {}, [0], [1], [2, 2], [0, 0], [-1, 2], [True, 2], [2**62, 2**62], [2.0, 2], [0, 2**63 - 1]),
    *({"hpc:type": "range", "value": [0, 10**18, 1]}, {"hpc:type": "tensor", "name": "x", "device": "cpu"}),
    *({"hpc:type": "set", "value": {"hpc:type": "range", "value": [0, 10**18, 1]}}, {"hpc:type": []}, {"hpc:type": 1}),
    {"hpc:type": "dataclass", "value": ["hpc.world.world", "World", {"__class__": 1}]},
]  # fmt: skip


def everywhere(name: str) -> Callable[[Any], Any]:
    """Examples that are the same in every run, on a machine of any speed; TIMES each of a seed, as drawing is slow."""
    profile = settings(max_examples=EXAMPLES[name] // TIMES, derandomize=True, deadline=None, database=None,
                       phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    return lambda test: profile(given(seed=st.integers(0, 2**64))(test))


def chances(name: str, seed: int) -> Iterator[random.Random]:
    """What decides about each of the examples of a seed."""
    for number in range(TIMES):
        COUNTED[name] = COUNTED.get(name, 0) + 1
        yield random.Random(f"{seed}-{number}")


def mutated(tree: Any, chance: random.Random) -> Any:
    """The same with one to three places changed."""
    holder = [copied(tree)]
    for _ in range(chance.randint(1, 3)):
        places = [*_places(holder)]
        where, key = chance.choice(places)
        match chance.choice(["evil", "evil", "evil", "nudge", "drop", "double", "rename", "swap"]):
            case "nudge" if type(where[key]) is int:
                where[key] += chance.choice([-1, 1, 2, 4, 1000])
            case "drop" if where is not holder:
                del where[key]
            case "double" if type(where) is list and where is not holder:
                where.append(where[key])
            case "rename" if type(where) is dict:
                where[chance.choice([each for each in EVIL if type(each) is str])] = where.pop(key)
            case "swap":
                other, place = chance.choice(places)
                where[key] = copied(other[place])
            case _:
                where[key] = copied(chance.choice(EVIL))
    return holder[0]


def copied(tree: Any) -> Any:
    """Other lists and dicts, with the same in them."""
    if type(tree) is dict:
        return {key: copied(each) for key, each in tree.items()}
    return type(tree)(copied(each) for each in tree) if type(tree) in (list, tuple) else tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in [*tree] if type(tree) is dict else range(len(tree)):
        yield tree, key
        if type(tree[key]) in (list, dict):
            yield from _places(tree[key])


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The same with bytes changed, left out, doubled or put in."""
    for _ in range(chance.randint(1, 4)):
        begin = chance.randint(0, len(content))
        end = min(len(content), begin + chance.choice([0, 1, 1, 2, 8, 100]))
        middle = chance.choice([chance.randbytes(chance.randint(0, 8)), content[begin:end] * 2])
        content = content[:begin] + middle + content[end:]
    return content


def sealed(content: bytes) -> bytes:
    """A manifest.json whose checksum is right."""
    return OPENING % xxhash.xxh3_128_hexdigest(content).encode() + content + b"}\n"


def body(manifest: Path) -> bytes:
    return manifest.read_bytes()[len(OPENING % bytes(32)) : -2]


def trained() -> TrainingState:
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return TrainingState([model], [optimizer], {"user.best": Holder({"a": [1, torch.ones(2)], "b": {1, 2}})})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, whose manifest has tensors in several pieces, an alias and a metric besides."""
    life = Life(tmp_path_factory.mktemp("fuzz") / "run" / "checkpoints")
    directory = commit(life.store, Alone(), snapshot(trained(), 3, 0, {"step": 3}, {"loss": 0.5})).directory
    fields = json.loads(body(directory / "manifest.json"))
    weight = fields["tensors"]["model/weight"]["pieces"]
    begin = weight[0]["begin"]
    weight[:] = [
        {"file": "model.safetensors", "begin": begin, "offsets": [0, 0], "shape": [2, 2]},
        {"file": "model.safetensors", "begin": begin + 16, "offsets": [2, 0], "shape": [1, 1]},
        {"file": "model.safetensors", "begin": begin + 20, "offsets": [2, 1], "shape": [1, 1]},
    ]
    fields["aliases"]["others/tied"] = "model/bias"
    (directory / "manifest.json").write_bytes(sealed(json.dumps(fields).encode()))
    return directory


def check(manifest: Manifest) -> None:
    """What was accepted can be followed: told element by element, where tensors are small enough for that."""
    taken: dict[str, set[int]] = {name: set() for name in manifest.written.files}
    for entry in manifest.written.tensors.values():
        if math.prod(entry.shape) > 1000:
            raise AssertionError(f"no file here is that large: {entry}")
        count = np.zeros(entry.shape, int)
        for piece in entry.pieces:
            count[tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.shape, strict=True))] += 1
            size = math.prod(piece.shape) * ITEM_BYTES[entry.dtype]
            own = {*range(piece.begin, piece.begin + size)}
            assert len(own) == 0 or max(own) < manifest.written.files[piece.file].bytes
            assert not own & taken[piece.file]
            taken[piece.file] |= own
        assert (count == 1).all()
    for name in manifest.written.files:
        assert name == shown(name)
        assert ".." not in name.split("/")
        assert not name.startswith("/")
    assert {*manifest.written.aliases.values()} <= manifest.written.tensors.keys()


@everywhere("manifests")
def test_a_manifest_is_followed_or_refused(saved: Path, seed: int) -> None:
    for chance in chances("manifests", seed):
        fields = mutated(json.loads(body(saved / "manifest.json")), chance)
        try:
            found = parsed(sealed(json.dumps(fields).encode()))
        except ValueError:
            continue
        if all(entry.bytes < 10**6 for entry in found.written.files.values()):  # else a tensor may be as large
            check(found)


@everywhere("bytes of manifests")
def test_any_bytes_are_a_manifest_or_refused(saved: Path, seed: int) -> None:
    for chance in chances("bytes of manifests", seed):
        with suppress(ValueError):
            check(parsed(sealed(damaged(body(saved / "manifest.json"), chance))))


PLAIN = {name: packed(value, name) for name, value in VALUES.items()}


@everywhere("values")
def test_a_value_is_unpacked_or_refused_without_taking_more_memory_than_it_has(seed: int) -> None:
    tracemalloc.start()
    try:
        for chance in chances("values", seed):
            plain = mutated({"value": PLAIN[chance.choice([*PLAIN])]}, chance)
            with suppress(ValueError, LoadError):
                unpacked(plain, lambda _: torch.zeros(1))
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


@everywhere("bytes of trainer.pt")
def test_any_bytes_are_a_trainer_file_or_refused(saved: Path, seed: int) -> None:
    for chance in chances("bytes of trainer.pt", seed):
        content = damaged((saved / "trainer.pt").read_bytes(), chance)
        with suppress(ValueError, LoadError):
            found = read_trainer(io.BytesIO(content))
            check_trainer(found, {f"model/{name}" for name in ("weight", "bias")})
            unpacked(found, lambda _: torch.zeros(1))


@everywhere("loads")
def test_whatever_lies_there_a_run_goes_on_or_is_told_in_one_sentence(saved: Path, seed: int) -> None:
    """Through the readers that people use, with every checksum right."""
    for chance in chances("loads", seed):
        run = saved.parent.parent.with_name("copy")
        shutil.copytree(saved.parent.parent, run)
        change(run / "checkpoints" / saved.name, chance)
        said: list[str] = []
        state = trained()
        with spying() as largest:
            try:
                load_latest(CheckpointStore(run / "checkpoints"), state, Alone(), said.append)
            except LoadError as error:
                said.append(str(error))
            for verb in (["ls"], ["verify"], ["export", "--output", str(run / "out")]):
                done = CliRunner().invoke(main, ["checkpoint", verb[0], str(run), *verb[1:]])
                assert done.exit_code in (0, 65, 78), (done.output, done.exception)
                said += done.output.splitlines()
        assert max(largest, default=0) < MOST_BYTES
        assert all(line.isprintable() for line in said)
        shutil.rmtree(run)


def change(directory: Path, chance: random.Random) -> None:
    """Change one file of a checkpoint, and have the manifest agree with it."""
    fields = json.loads(body(directory / "manifest.json"))
    name = chance.choice(["trainer.pt", "model.safetensors", "optimizer.safetensors", "manifest.json"])
    if name == "manifest.json":
        fields = mutated(fields, chance)
    elif name == "trainer.pt":
        content = read_trainer(io.BytesIO((directory / name).read_bytes()))
        torch.save(mutated(content, chance), directory / name)
    else:
        (directory / name).write_bytes(damaged((directory / name).read_bytes(), chance))
    if name != "manifest.json":
        written = (directory / name).read_bytes()
        fields["files"][name] |= {"bytes": len(written), "xxh3_128": xxhash.xxh3_128_hexdigest(written)}
    (directory / "manifest.json").write_bytes(sealed(json.dumps(fields).encode()))


class spying:  # noqa: N801 (it is used like a function)
    """How many bytes torch is asked for, each time a tensor is made room for."""

    def __enter__(self) -> list[int]:
        self.largest: list[int] = []
        self.empty = torch.empty
        torch.empty = self._empty
        return self.largest

    def _empty(self, *arguments: Any, **named: Any) -> Any:
        if arguments and isinstance(arguments[0], (tuple, torch.Size)):
            dtype = named.get("dtype") or torch.float32
            self.largest.append(math.prod(arguments[0]) * dtype.itemsize)
        return self.empty(*arguments, **named)

    def __exit__(self, *_: object) -> None:
        torch.empty = self.empty


def test_as_many_were_tried_as_is_said() -> None:
    """Last of this file: hypothesis stops early where it thinks that it has seen everything."""
    if COUNTED.keys() < EXAMPLES.keys():
        pytest.skip("not all of this file was run")
    assert all(COUNTED[name] >= EXAMPLES[name] for name in EXAMPLES), COUNTED
    assert sum(COUNTED.values()) >= 10_000


def test_the_two_tables_of_types_agree() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == ITEM_BYTES

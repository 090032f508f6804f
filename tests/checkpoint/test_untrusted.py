"""A checkpoint that somebody else has written ends in one sentence, whoever reads it, and nothing of it is believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from click.testing import CliRunner

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.manifest import OPENING
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.trainer import read_trainer
from hpc.checkpoint.untrusted import parsed, read_manifest
from hpc.cli import main
from hpc.errors import LoadError
from tests.support.saves import Alone, Life, state

HUGE = 10**30


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Life(tmp_path / "run" / "checkpoints").save(7).directory


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A reader that hangs ends the test, and not the suite."""
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _hangs(*_: object) -> None:
    raise AssertionError("it hangs")


def seal(directory: Path, content: bytes) -> None:
    sealed = OPENING % xxhash.xxh3_128_hexdigest(content).encode() + content + b"}\n"
    (directory / "manifest.json").write_bytes(sealed)


def fields_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())["checkpoint"]
    return found


def agree(directory: Path) -> None:
    """Have the manifest tell of the files as they are."""
    fields = fields_of(directory)
    for name, entry in fields["files"].items():
        content = (directory / name).read_bytes()
        entry |= {"bytes": len(content), "xxh3_128": xxhash.xxh3_128_hexdigest(content)}
    seal(directory, json.dumps(fields).encode())


def content_of(directory: Path) -> dict[str, Any]:
    return read_trainer(io.BytesIO((directory / "trainer.pt").read_bytes()))


VERBS = ("ls", "verify", "export")


def is_refused(directory: Path, *verbs: str) -> str:
    """What a resume says; it and the verbs do so in one line, and with 65."""
    said: list[str] = []
    try:
        assert load_latest(CheckpointStore(directory.parent), state(), Alone(), said.append) is None
    except LoadError as error:
        said.append(str(error))
    assert len(said) == 1
    run = directory.parent.parent
    for verb in verbs:
        done = CliRunner().invoke(main, ["checkpoint", verb, str(run)])
        assert done.exit_code == 65, (verb, done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        said += done.output.splitlines()
    assert all(line.isprintable() for line in said)
    assert not (run / "model.safetensors").exists()
    return said[0]


WEIGHT, FILE = "model/0.weight", "model.safetensors"


def _piece(**fields: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["tensors"][WEIGHT]["pieces"][0].update(fields)


def _tensor(**fields: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["tensors"][WEIGHT].update(fields)


def _file(**fields: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["files"][FILE].update(fields)


def _renamed(name: str) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        manifest["files"][name] = manifest["files"].pop(FILE)
        for tensor in manifest["tensors"].values():
            for piece in tensor["pieces"]:
                piece["file"] = name if piece["file"] == FILE else piece["file"]

    return change


def _pieces(*boxes: tuple[list[int], list[int]]) -> Callable[[Any], None]:
    def change(manifest: Any) -> None:
        own = manifest["tensors"][WEIGHT]["pieces"]
        first = own.pop()
        own += [{**first, "offsets": offsets, "shape": shape} for offsets, shape in boxes]

    return change


def _without(name: str) -> Callable[[Any], None]:
    return lambda manifest: manifest.pop(name)


def _twice(manifest: Any) -> None:
    manifest["tensors"]["model/again"] = manifest["tensors"][WEIGHT]


def _set(**fields: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest.update(fields)


FILE_FIELDS: list[dict[str, Any]] = [
    {"rank": "0"}, {"rank": True}, {"rank": -1}, {"rank": 0.0}, {"rank": None}, {"rank": HUGE}, {"bytes": HUGE},
    {"bytes": -1}, {"bytes": 1.5}, {"bytes": True}, {"xxh3_128": 5}, {"xxh3_128": "x" * 32}, {"mode": 0},
]  # fmt: skip
TENSOR_FIELDS: list[dict[str, Any]] = [
    {"dtype": "F4"}, {"dtype": ["F32"]}, {"dtype": None}, {"shape": [10**6, 10**6]}, {"shape": [64, HUGE]},
    {"shape": [2**62, 2**62]}, {"shape": [0, 2**63]}, {"shape": [64, -64]}, {"shape": [64.0, 64]},
    {"shape": [True, 64]}, {"shape": "64"}, {"shape": [1] * 65}, {"pieces": []},
    {"pieces": {}}, {"pieces": None}, {"strides": [1, 64]},
]  # fmt: skip
PIECE_FIELDS: list[dict[str, Any]] = [
    {"begin": -8}, {"begin": HUGE}, {"begin": 10**12}, {"begin": 8.0}, {"begin": False}, {"offsets": [-1, 0]},
    {"offsets": [1, 0]}, {"offsets": [0]}, {"offsets": [0, 0, 0]}, {"offsets": [0, 0.0]}, {"offsets": [HUGE, 0]},
    {"shape": [64, 63]}, {"shape": [64, 65]}, {"shape": [0, 64]}, {"shape": [-64, -64]}, {"shape": [HUGE, HUGE]},
    {"file": "trainer.pt/.."}, {"file": 3}, {"file": "unlisted"}, {"file": None},
]  # fmt: skip
MANIFEST_FIELDS: list[dict[str, Any]] = [
    {"step": "7"}, {"step": -1}, {"step": 8}, {"step": HUGE}, {"step": True}, {"format": "2"}, {"format": 99},
    {"format": True}, {"token": 5}, {"token": "x" * 5000}, {"saved_at": "now"}, {"saved_at": float("nan")},
    {"saved_at": float("inf")}, {"saved_at": HUGE}, {"metrics": []}, {"metrics": {"a": "b"}},
    {"metrics": {"a": HUGE}}, {"files": {}}, {"files": []}, {"tensors": None}, {"aliases": {"a": "b"}},
    {"aliases": {WEIGHT: WEIGHT}},
    {"aliases": {"a": ["b"]}}, {"aliases": {"a": "b", "b": WEIGHT}}, {"more": 1},
]  # fmt: skip
CHANGES: dict[str, Callable[[Any], None]] = {
    **{f"named {name!r}": _renamed(name) for name in (
        "/etc/passwd", "../../secret", "a/../../secret", "", ".", "..", "./model.safetensors", "a//b", "a/", "a\\b",
        "~/x", "a\x00b", "a\nb", "\x1b[2Jx", "\ud800", "\u202etxt", "manifest.json", "-rf", "x" * 2000,
        ".hidden", "C:x",
    )},
    **{f"file {fields}": _file(**fields) for fields in FILE_FIELDS},
    **{f"tensor {fields}": _tensor(**fields) for fields in TENSOR_FIELDS},
    **{f"piece {fields}": _piece(**fields) for fields in PIECE_FIELDS},
    "a hole": _pieces(([0, 0], [63, 64])),
    "the same twice": _pieces(([0, 0], [64, 64]), ([0, 0], [64, 64])),
    "an overlap": _pieces(([0, 0], [40, 64]), ([24, 0], [40, 64])),
    "an overlap beside a hole": _pieces(([0, 0], [32, 64]), ([16, 0], [32, 64])),
    "a piece of nothing": _pieces(([0, 0], [64, 64]), ([0, 0], [0, 64])),
    "negative pieces that add up": _pieces(([0, 0], [65, 64]), ([64, 0], [-1, 64])),
    "two tensors in the same bytes": _twice,
    **{f"manifest {fields}": _set(**fields) for fields in MANIFEST_FIELDS},
    **{f"without {name}": _without(name) for name in (
        "step", "token", "saved_at", "metrics", "files", "tensors", "aliases", "format",
    )},
}  # fmt: skip


def test_a_manifest_that_says_what_cannot_be_is_refused_before_anything_is_opened(saved: Path) -> None:
    """All of them where they are read; and some through every reader, because each takes a while."""
    whole = fields_of(saved)
    for name, change in CHANGES.items():
        fields = json.loads(json.dumps(whole))
        change(fields)
        seal(saved, json.dumps(fields).encode())
        with pytest.raises(Exception, match=r"^manifest\.json [^\n]{5,}$") as raised:
            read_manifest(saved)
        assert type(raised.value).__name__ == "DamagedError", name
        assert str(raised.value).isprintable(), name


@pytest.mark.parametrize(
    "name", ["named '/etc/passwd'", "named '\\x1b[2Jx'", "file {'rank': '0'}", "tensor {'shape': [1000000, 1000000]}",
             "tensor {'pieces': []}", "piece {'begin': -8}", "an overlap beside a hole",
             "two tensors in the same bytes"],
)  # fmt: skip
def test_it_is_refused_by_every_reader(saved: Path, name: str) -> None:
    fields = fields_of(saved)
    CHANGES[name](fields)
    seal(saved, json.dumps(fields).encode())
    assert "manifest.json cannot be read (" in is_refused(saved, *VERBS)


TEXTS = {
    "nested": b'{"format":' * 100_000,
    "lists": b"[" * 100_000 + b"]" * 100_000,
    "not UTF-8": b'{"format":2,"a":"\xff"}',
    "UTF-16": '{"format":2}'.encode("utf-16"),
    "a number of a million digits": b'{"format":' + b"9" * 10**6 + b"}",
    "twice": b'{"format":2,"format":2}',
    "nothing": b"",
    "more after it": b'{"format":2} {}',
    "no object": b"[]",
    "null": b"null",
}


def test_a_text_that_is_no_manifest_is_refused(saved: Path) -> None:
    whole = json.dumps(fields_of(saved)).encode()
    texts = {**TEXTS, "a key twice": whole.replace(b'"step": 7', b'"step": 7, "step": 7'), "a tail": whole + b" x"}
    for name, text in texts.items():
        seal(saved, text)
        with pytest.raises(Exception, match=r"manifest\.json cannot be read") as raised:
            read_manifest(saved)
        assert type(raised.value).__name__ == "DamagedError", name
    seal(saved, TEXTS["nested"])
    is_refused(saved)


def test_a_manifest_without_end_is_not_read(saved: Path) -> None:
    with (saved / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "manifest.json must have 268435456 bytes at most" in is_refused(saved, *VERBS)


def test_ten_thousand_tensors_in_pieces_are_checked_and_bad_ones_found(saved: Path) -> None:
    fields = fields_of(saved)
    pieces = [{"file": FILE, "begin": 4 * n, "offsets": [n, 0], "shape": [1, 1]} for n in range(10_000)]
    fields |= {"tensors": {"model/long": {"dtype": "F32", "shape": [10_000, 1], "pieces": pieces}}}
    fields["files"][FILE]["bytes"] = 40_000
    seal(saved, json.dumps(fields).encode())
    assert len(parsed((saved / "manifest.json").read_bytes()).written.tensors["model/long"].pieces) == 10_000
    pieces[5000]["offsets"] = [4999, 0]
    seal(saved, json.dumps(fields).encode())
    with pytest.raises(ValueError, match="leave holes or overlap"):
        parsed((saved / "manifest.json").read_bytes())


def _in_place_of(name: str, make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def change(directory: Path, elsewhere: Path) -> None:
        shutil.move(directory / name, elsewhere / name)
        make(directory / name, elsewhere / name)

    return change


def _link_of_checkpoint(directory: Path, elsewhere: Path) -> None:
    shutil.move(directory, elsewhere / "real")
    directory.symlink_to(elsewhere / "real")


def _dangling(directory: Path, elsewhere: Path) -> None:
    shutil.rmtree(directory)
    directory.symlink_to(elsewhere / "nowhere")


def _folder(directory: Path, elsewhere: Path) -> None:
    """A file below a folder that is a link."""
    shutil.move(directory / FILE, elsewhere / FILE)
    (directory / "folder").symlink_to(elsewhere)
    fields = fields_of(directory)
    _renamed(f"folder/{FILE}")(fields)
    seal(directory, json.dumps(fields).encode())


PLACES: dict[str, Callable[[Path, Path], None]] = {
    **{f"{what} for {name}": _in_place_of(name, make)
       for name in (FILE, "trainer.pt", "manifest.json") for what, make in {
        "link": lambda path, real: path.symlink_to(real),
        "FIFO": lambda path, _: os.mkfifo(path),
        "device": lambda path, _: path.symlink_to("/dev/zero"),
        "directory": lambda path, _: path.mkdir(),
        "nothing": lambda *_: None,
        "other content by a hard link": lambda path, real: (real.write_bytes(b"x" * real.stat().st_size),
                                                            path.hardlink_to(real)),
    }.items()},
    "link for the checkpoint": _link_of_checkpoint, "link to nowhere for the checkpoint": _dangling,
    "link for a folder": _folder,
}  # fmt: skip


@pytest.mark.parametrize("place", [each for each in PLACES if each != "nothing for manifest.json"])
def test_only_regular_files_of_its_own_are_read(saved: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    PLACES[place](saved, tmp_path / "elsewhere")
    is_refused(saved, *(VERBS if "manifest" in place or "checkpoint" in place else VERBS[1:]))


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device")
def test_a_device_is_not_opened(saved: Path) -> None:
    (saved / FILE).unlink()
    os.mknod(saved / FILE, 0o600 | 0o020000, os.makedev(1, 5))
    assert f"{FILE} must be a regular file" in is_refused(saved, "verify", "export")


def test_a_hard_link_of_the_same_content_is_the_file(saved: Path, tmp_path: Path) -> None:
    """As a copy by `cp -al` has it; nothing is ever written into a file that is there."""
    (tmp_path / "copy").hardlink_to(saved / FILE)
    assert load_latest(CheckpointStore(saved.parent), state(), Alone(), print) is not None


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo hpc was here > /tmp/never",)


def _itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def _unfolding() -> Any:
    value: Any = [1] * 10
    for _ in range(12):
        value = [value] * 10
    return value


def _tagged(what: str, value: Any) -> dict[str, Any]:
    return {"hpc:type": what, "value": value}


ENDLESS = _tagged("range", [0, 10**18, 1])
OTHERS: dict[str, Any] = {
    "endless set": _tagged("set", ENDLESS), "endless deque": _tagged("deque", [ENDLESS, None]),
    "bytes without end": _tagged("bytearray", 10**14), "unknown": _tagged("nothing", 1),
    "a list of tags": {"hpc:type": []},
    "no class": _tagged("dataclass", ["os", "system", {}]),
    "a class to be imported": _tagged("enum", ["antigravity", "X", 1]),
    "a dataclass of another form": _tagged("dataclass", ["hpc.world.world", "World", 5]),
    "a tuple of other fields": _tagged("namedtuple", ["sys", "int_info", [1]]),
    "an array beyond its bytes": _tagged("numpy.ndarray", torch.frombuffer(bytearray(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(128)
    ), dtype=torch.uint8)),
    "an array with objects": _tagged("numpy.ndarray", torch.frombuffer(bytearray(
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(128)
    ), dtype=torch.uint8)),
    "no tensor": _tagged("bytes", [1]), "no such device": _tagged("torch.Generator", ["hub", torch.zeros(1)]),
    "random state out of bounds": _tagged("numpy.random.RandomState", (
        "MT19937", _tagged("numpy.objects", [[624], [1] * 624]), 10**6, 0, 0.0)),
    "an unfolding tensor": {"hpc:type": "tensor", "device": "cpu", "value": torch.ones(1).expand(10**6, 10**6)},
}  # fmt: skip


def test_values_that_nobody_has_packed_are_refused(saved: Path) -> None:
    whole = content_of(saved)
    for name, value in OTHERS.items():
        torch.save({**whole, "more": value}, saved / "trainer.pt")
        agree(saved)
        assert is_refused(saved), name


def _written(path: Path, content: Any) -> None:
    torch.save(content, path)


def _zipped_again(path: Path, change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def _compressed(path: Path, content: Any) -> None:
    """A file that grows when it is unpacked."""
    torch.save(content, path)
    _zipped_again(path, lambda _, part: part, zipfile.ZIP_DEFLATED)


def _longer_than_it_is(path: Path, content: Any) -> None:
    """A tensor whose memory is said to be longer than it is, so that torch reads what lies behind it."""
    torch.save({**content, "more": torch.arange(7, dtype=torch.int64)}, path)
    _zipped_again(path, lambda name, part: part.replace(b"K\x07tq", b"K\xf7tq") if name.endswith(".pkl") else part)


def _pickled(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content))


def _empty(path: Path, _: Any) -> None:
    path.write_bytes(b"")


def _legacy(path: Path, content: Any) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


FILES: dict[str, tuple[Callable[[Path, Any], None], Any, str]] = {
    "code": (_written, {"more": Evil()}, r"it holds posix\.system, which is no tensor and no plain value"),
    "a module": (_written, {"more": torch.nn.Linear(1, 1)}, r"it holds torch\.nn\.modules\.linear\.Linear"),
    "memory without end": (_written, {"more": bytearray(8)}, r"it holds __builtin__\.bytearray"),
    "itself": (_written, {"more": _itself()}, "it holds itself"),
    "unfolding": (_written, {"more": _unfolding()}, "the same again and again"),
    "a pickle": (_pickled, {"more": Evil()}, "no file of torch.save"),
    "an old file": (_legacy, {}, "no file of torch.save"),
    "nothing": (_empty, {}, "no file of torch.save"),
    "compressed": (_compressed, {"more": torch.ones(3)}, "not stored as torch.save stores them"),
    "longer than it is": (_longer_than_it_is, {}, "the memory of a tensor is not as long as it says"),
    "a list": (lambda path, _: torch.save([1], path), {}, "it holds a list"),
    "other models": (_written, {"models": {}}, "its models have another form"),
    "other optimizers": (_written, {"optimizers": [{"groups": [{"params": [1]}]}]}, "an optimizer have another form"),
    "other names": (_written, {"frozen": {"now": [1], "set up": []}}, "its frozen have another form"),
    "a tensor that is not there": (
        _written, {"others": {"x": {"hpc:type": "tensor", "name": "/etc/passwd", "device": "cpu"}}},
        "its tensors have another form",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_trainer_file_that_holds_something_else_is_one_sentence(saved: Path, name: str) -> None:
    write, content, said = FILES[name]
    write(saved / "trainer.pt", {**content_of(saved), **content})
    agree(saved)
    found = is_refused(saved)
    assert "trainer.pt cannot be read (" in found
    assert re.search(said, found), found

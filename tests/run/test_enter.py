"""What does a task import once its code is a copy? Real interpreters, started as a job starts them."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from hpc.paths import TEMPLATE_DIR
from hpc.run import enter

FINDER = """
import importlib.util, sys
MAPPING = {{"edited": "{place}/edited"}}
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in MAPPING:
            return None
        locations = [MAPPING[name]]
        return importlib.util.spec_from_file_location(name, MAPPING[name] + "/__init__.py",
                                                      submodule_search_locations=locations)
sys.meta_path.insert({position}, Finder)
"""
MAIN = """
import json, multiprocessing, os, pathlib, subprocess, sys
def answer():
    import flat, src_package.part, edited
    return [module.VALUE for module in (flat, src_package.part, edited)]
def child(queue):
    queue.put(answer())
if __name__ == "__main__":
    found = {"here": answer(), "arguments": sys.argv[1:], "cwd": os.getcwd()}
    queue = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(queue,))
    process.start()
    found["spawned"] = queue.get(timeout=60)
    process.join()
    program = "import flat, src_package.part; print(flat.VALUE, src_package.part.VALUE)"
    found["started"] = subprocess.check_output([sys.executable, "-c", program], cwd="/", text=True).split()
    import flat
    found["data"] = (pathlib.Path(flat.__file__).parent / "data" / "x.txt").read_text()
    found["file"] = flat.__file__
    print(json.dumps(found))
"""


def files_of(value: str) -> dict[str, str]:
    """A project in three layouts; every module says which of its versions it is."""
    text = f"VALUE = {value!r}\n"
    return {"main.py": MAIN, "flat.py": text, "src/src_package/part.py": text, "lib/edited/__init__.py": text}


def put(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A project that has been edited since it was submitted."""
    root = tmp_path / "live"
    put(root, {**files_of("live"), "data/x.txt": "data"})
    return root


@pytest.fixture
def archive(tmp_path: Path, live: Path) -> Path:
    """The code as it was submitted."""
    manifest = {"roots": [{"name": "project", "live": str(live), "imported": ["", "src", "lib"]}]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr(enter.MANIFEST, json.dumps(manifest))
        opened.writestr(enter.ENTER, Path(enter.__file__).read_text())
        for name, text in files_of("submitted").items():
            opened.writestr(f"project/{name}", text)
        link = zipfile.ZipInfo("project/data")
        link.external_attr = 0o120000 << 16
        opened.writestr(link, str(live / "data"))
    path = tmp_path / "code-0123456789abcdef.zip"
    path.write_bytes(buffer.getvalue())
    return path


def start(archive: Path, live: Path, digest: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """A task whose working directory and PYTHONPATH lead to the live files."""
    temporary = archive.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    program = (TEMPLATE_DIR / "enter.py").read_text()
    return subprocess.run(
        [sys.executable, "-u", "-c", program, str(archive), digest, "-u", "-m", "main", "one", "two words"],
        cwd=live, env={"PYTHONPATH": ":".join(map(str, paths)), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def digest_of(archive: Path) -> str:
    return sha256(archive.read_bytes()).hexdigest()


def install_editable(directory: Path, live: Path, position: int) -> None:
    """As setuptools does it: a finder in every interpreter that knows where a package lies."""
    put(directory, {"sitecustomize.py": "import __editable___finder\n"})
    put(directory, {"__editable___finder.py": FINDER.format(place=live / "lib", position=position)})


def test_every_process_of_a_task_imports_what_was_submitted(archive: Path, live: Path, tmp_path: Path) -> None:
    install_editable(tmp_path / "site", live, 99)  # setuptools appends it
    done = start(archive, live, digest_of(archive), tmp_path / "site", live / "src")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    home = Path(found.pop("file")).parent
    assert found == {
        "here": ["submitted"] * 3,
        "spawned": ["submitted"] * 3,
        "started": ["submitted"] * 2,
        "data": "data",
        "arguments": ["one", "two words"],
        "cwd": str(live),
    }
    assert {path.stat().st_mode & 0o777 for path in home.rglob("*.py")} == {0o600}
    assert home.parents[1].stat().st_mode & 0o777 == 0o700


def test_an_editable_install_that_comes_before_all_others_leads_to_the_copy(
    archive: Path, live: Path, tmp_path: Path
) -> None:
    install_editable(tmp_path / "site", live, 0)
    done = start(archive, live, digest_of(archive), tmp_path / "site", live / "src")
    assert json.loads(done.stdout)["here"] == ["submitted"] * 3


def test_what_somebody_has_changed_in_the_copy_is_what_was_submitted_again(archive: Path, live: Path) -> None:
    first = json.loads(start(archive, live, digest_of(archive)).stdout)
    Path(first["file"]).write_text("VALUE = 'planted'\n")
    assert json.loads(start(archive, live, digest_of(archive)).stdout)["here"] == ["submitted"] * 3


def test_a_directory_of_somebody_else_is_not_used(archive: Path, live: Path) -> None:
    first = Path(json.loads(start(archive, live, digest_of(archive)).stdout)["file"])
    first.parents[2].chmod(0o777)
    assert not Path(json.loads(start(archive, live, digest_of(archive)).stdout)["file"]).is_relative_to(
        first.parents[2]
    )


def test_copies_that_nobody_uses_any_more_are_removed_and_others_are_not(archive: Path, live: Path) -> None:
    base = Path(json.loads(start(archive, live, digest_of(archive)).stdout)["file"]).parents[2]
    for name in ("old", "used", "new"):
        put(base / name, {"project/flat.py": ""})
        if name != "new":
            os.utime(base / name, (0, 0))
    used = os.open(base / "used", os.O_RDONLY)
    fcntl.flock(used, fcntl.LOCK_SH)
    assert start(archive, live, digest_of(archive)).returncode == 0
    os.close(used)
    assert sorted(path.name for path in base.iterdir() if path.suffix != ".lock") == sorted(
        [digest_of(archive)[:16], "new", "used"]
    )


@pytest.mark.parametrize("change", ["damaged", "empty", "missing"])
def test_code_that_is_not_what_was_submitted_is_one_sentence_and_65(archive: Path, live: Path, change: str) -> None:
    digest = digest_of(archive)
    if change == "missing":
        archive.unlink()
    else:
        archive.write_bytes(archive.read_bytes().replace(b"submitted", b"Submitted") if change == "damaged" else b"")
    done = start(archive, live, digest)
    assert done.returncode == 65
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hpc: {archive} must hold the code that was submitted, but does not (")


def test_a_node_without_room_is_one_sentence_and_78(archive: Path, live: Path) -> None:
    digest = digest_of(archive)
    base = Path(json.loads(start(archive, live, digest).stdout)["file"]).parents[2]
    home = base / digest[:16]
    home.rename(base / "aside")
    home.write_text("a file where the directory should be")
    done = start(archive, live, digest)
    assert done.returncode == 78
    assert "must have room for the code of this job, but has not" in done.stderr

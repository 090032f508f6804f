"""Which files does a submission keep, and which does it refuse? Real repositories, looked at in this process."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hpc.errors import ConfigurationError, LoadError
from hpc.run.code import Code, code_of_point, read_code
from hpc.run.enter import ENTER, MANIFEST
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.submit.named_files import keep_files
from hpc.submit.snapshot import code_of


def git(directory: Path, *arguments: str) -> None:
    options = ("user.name=somebody", "user.email=somebody@here", "protocol.file.allow=always")
    settings = [word for option in options for word in ("-c", option)]
    subprocess.run(["git", *settings, *arguments], cwd=directory, check=True, capture_output=True)


def write(root: Path, **files: str) -> None:
    """`pkg__train="..."` is pkg/train.py."""
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def point(target: str = "pkg.train.train", **sections: Any) -> Point:
    return Point("0", (), {"experiment": {"target": target}, **sections})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in which the command is typed."""
    root = tmp_path / "project"
    write(root, pkg__train="def train(cfg): ...\n", pkg__helper="VALUE = 1\n")
    (root / "pkg" / "__init__.py").touch()
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    monkeypatch.chdir(root)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def kept(code: Code) -> dict[str, tuple[str, str]]:
    """Kind and content of each file."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(code.data)) as archive:
        for info in archive.infolist():
            if info.filename in (MANIFEST, ENTER):
                continue
            mode = info.external_attr >> 16
            kind = "link" if stat.S_ISLNK(mode) else "program" if mode & 0o100 else "file"
            found[info.filename.partition("/")[2]] = (kind, archive.read(info).decode())
    return found


def test_the_working_tree_is_kept_as_git_sees_it(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, inner="INNER = 1\n")
    git(other, "init", "-q")
    git(other, "add", ".")
    git(other, "commit", "-qm", "one")
    git(project, "submodule", "add", "-q", str(other), "third/party")
    write(project, pkg__helper="VALUE = 2\n", pkg__new="NEW = 1\n", pkg__gone="GONE = 1\n", nested__own="OWN = 1\n")
    (project / ".gitignore").write_text("data/\n*.bin\n_version.py\n*.so\n.hidden/\n__pycache__/\n")
    git(project, "add", ".gitignore", "pkg/gone.py")
    git(project, "commit", "-qm", "two")
    (project / "pkg" / "gone.py").unlink()
    git(project / "nested", "init", "-q")
    git(project / "nested", "add", ".")
    git(project / "nested", "commit", "-qm", "one")
    write(project, third__party__inner="INNER = 2\n", pkg___version="VERSION = 3\n", data__big="", runs__0__x="")
    (project / "pkg" / "native.so").write_text("compiled")
    (project / "pkg" / "words.bin").write_text("words")
    (project / "runs" / "sweep.json").touch()
    (project / "runs" / "points.jsonl").touch()
    (project / "environment" / "lib").mkdir(parents=True)
    (project / "environment" / "pyvenv.cfg").touch()
    (project / "environment" / "lib" / "x.py").touch()
    (project / "tool.sh").write_text("#!/bin/sh\n")
    (project / "tool.sh").chmod(0o755)
    (project / "inside").symlink_to("pkg/helper.py")
    (project / "absolute").symlink_to(project / "pkg" / "helper.py")
    (project / "outside").symlink_to("../other")
    (project / "round").symlink_to("round")
    found = kept(code_of([point()]))
    found.pop(".gitignore")
    found.pop(".gitmodules")
    assert found == {
        "pkg/__init__.py": ("file", ""),
        "pkg/train.py": ("file", "def train(cfg): ...\n"),
        "pkg/helper.py": ("file", "VALUE = 2\n"),
        "pkg/new.py": ("file", "NEW = 1\n"),
        "pkg/_version.py": ("file", "VERSION = 3\n"),
        "pkg/native.so": ("file", "compiled"),
        "pkg/words.bin": ("link", str(project / "pkg" / "words.bin")),
        "data": ("link", str(project / "data")),
        "nested/own.py": ("file", "OWN = 1\n"),
        "third/party/inner.py": ("file", "INNER = 2\n"),
        "tool.sh": ("program", "#!/bin/sh\n"),
        "inside": ("link", "pkg/helper.py"),
        "absolute": ("link", "pkg/helper.py"),
        "outside": ("link", str(other)),
        "round": ("link", "round"),
    }


def test_the_same_code_is_one_file_of_the_disk_and_other_code_another(project: Path, tmp_path: Path) -> None:
    sweeps = [tmp_path / f"sweep{number}" for number in range(4)]
    codes: list[Code] = []
    for number, sweep in enumerate(sweeps):
        if number == 2:
            write(project, pkg__helper="VALUE = 2\n")
        if number == 3:
            (sweeps[2] / codes[2].name).write_bytes(b"damaged")
        codes.append(code_of([point()]))
        Sweep(sweep, (point(),), codes[-1]).write()
    first, second, third, fourth = (sweep / code.name for sweep, code in zip(sweeps, codes, strict=True))
    assert first.stat().st_ino == second.stat().st_ino
    assert codes[0].digest == codes[1].digest != codes[2].digest == codes[3].digest
    assert third.stat().st_ino != fourth.stat().st_ino
    assert {stat.S_IMODE(path.stat().st_mode) for path in (first, fourth, sweeps[0] / "code.jsonl")} == {0o600}
    read = code_of_point(sweeps[3], "0")
    assert read is not None
    assert read_code(sweeps[3], read)["project/pkg/helper.py"] == b"VALUE = 2\n"
    with pytest.raises(LoadError, match="has changed since"):
        read_code(sweeps[2], codes[2])
    (known,) = read.record["projects"]
    assert known["changed"] == ["pkg/helper.py"]
    assert "+VALUE = 2\n" in known["diff"]
    assert read.record["versions"]["hydra-core"]
    here = Path(__file__).resolve().parents[2]
    assert here in [Path(each["root"]) for each in read.record["elsewhere"]] or here in Path(sys.prefix).parents


@pytest.mark.parametrize("limit", ["snapshot_max_megabytes", "snapshot_max_files"])
def test_a_project_that_is_no_code_is_refused_with_its_largest_folders(project: Path, limit: str) -> None:
    (project / "results").mkdir()
    (project / "results" / "tensor.bin").write_bytes(bytes(3_000_000))
    for number in range(20):
        (project / "results" / f"{number}.txt").touch()
    with pytest.raises(
        ConfigurationError, match=rf"launch\.{limit} must .*project.* but is 2, .*\(results .*gitignore"
    ):
        code_of([point(launch={limit: 2})])


@pytest.mark.usefixtures("project")
def test_what_is_not_to_be_kept_is_not() -> None:
    assert code_of([point(launch={"snapshot": False})]).tree == ""
    with pytest.raises(ConfigurationError, match=r"launch\.snapshot must be the same"):
        code_of([point(launch={"snapshot": False}), point()])
    assert "pkg/train.py" in kept(code_of([point("torch.nn.Linear")]))  # what is installed: the project typed in


def test_without_git_the_directory_that_is_imported_from_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "plain"
    write(root, train="def train(cfg): ...\n", models__net="", environment__lib__x="", hidden__x="")
    (root / "environment" / "pyvenv.cfg").touch()
    (root / "hidden").rename(root / ".hidden")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code = code_of([point("train.train")])
    assert sorted(kept(code)) == ["models/net.py", "train.py"]
    assert code_of([point("train.train")]).digest == code.digest
    assert code_of([point("json.dumps")]).tree == ""  # a part of Python, and no project here


def test_a_repository_that_git_refuses_is_one_sentence(project: Path) -> None:
    (project / ".git" / "HEAD").write_text("nonsense\n")
    with pytest.raises(
        ConfigurationError, match=r"git says of .*: fatal: .*; do what it asks for, or set launch\.snapsh"
    ):
        code_of([point()])


def test_files_that_settings_name_are_kept_with_the_points(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    file.write_text("{}")
    section = {"name": "deepspeed", "deepspeed_config": str(file)}
    points = [point(strategy=section), point(strategy=dict(section))]
    files = keep_files(tmp_path / "sweep", points)
    file.write_text('{"changed": true}')
    Sweep(tmp_path / "sweep", tuple(points), Code({}, files=files)).write()
    for each in points:
        copy = each.settings.strategy.deepspeed_config
        assert each.config["strategy"]["deepspeed_config"] == copy
        assert Path(str(copy)).read_text() == "{}"
    section["deepspeed_config"] = str(tmp_path / "missing.json")
    with pytest.raises(ConfigurationError, match=r"strategy\.deepspeed_config must be a file that can be read, but is"):
        keep_files(tmp_path / "sweep", [point(strategy=section)])


@pytest.mark.usefixtures("project")
def test_torch_is_not_imported_for_it() -> None:
    program = (
        "import sys\nfrom hpc.submit.snapshot import code_of\nfrom hpc.run.point import Point\n"
        "assert code_of([Point('0', (), {'experiment': {'target': 'pkg.train.train'}})]).tree\n"
        "assert 'torch' not in sys.modules and 'pkg' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(root)})

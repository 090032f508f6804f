"""hpc finds its configuration, its templates and its plugins, however it was installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, FakeSlurm, clean_environment

PACKAGES = ("hpc", "hydra_plugins")
DATA = ("conf", "images", "slurm_templates")
FILES = (
    "run.py",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    ".gitignore",
)
APP = """\
import hydra, hydra_plugins.hpc, hydra_plugins.hpc.launcher, hpc, hpc.paths

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    found = (hpc, hydra_plugins.hpc, hydra_plugins.hpc.launcher)
    print(config.hardware.gpus_per_node, *(module.__file__ for module in found), sep="\\n")
    print(hpc.paths.CONF_DIR, hpc.paths.TEMPLATE_DIR, sep="\\n")

main()
"""
CONFIG = "defaults: [hpc_schema, {hardware: 8xH100}, _self_]\n"


@dataclass(frozen=True)
class Installation:
    """One way to have hpc.

    Args:
        python: Of an environment with hpc's dependencies, where hpc came this way only.
        home: Where hpc/ and hydra_plugins/ must be found.
        script_command: Prints what would be sent.
        pythonpath: What another program sets to import hpc.
    """

    python: Path
    home: Path
    script_command: tuple[str, ...]
    pythonpath: str = ""

    def script(self, directory: Path, slurm: FakeSlurm, *overrides: str) -> str:
        """The batch script of a run on 8xA100."""
        command = [*self.script_command, "hardware=8xA100", "run_dir=out", *overrides]
        return _output(*command, cwd=directory, PYTHONPATH="", **slurm.environ)


def _output(*command: str, cwd: Path, **environ: str) -> str:
    environment = clean_environment(**environ)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, and nothing that was left in this one by running it."""
    directory = tmp_path_factory.mktemp("clone")
    litter = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in (*PACKAGES, *DATA, "tests"):
        shutil.copytree(ROOT / name, directory / name, ignore=litter)
    for name in FILES:
        (directory / name).touch()
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, directory / name)
    return directory


@pytest.fixture(scope="session")
def sdist(source: Path) -> Path:
    """The source archive; the wheel that was built from it lies beside it."""
    directory = source.with_name("from-sdist")
    _output(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), str(source), cwd=source)
    (archive,) = directory.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def wheel_from_sdist(sdist: Path) -> Path:
    (wheel,) = sdist.parent.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(source: Path) -> Path:
    """The wheel that was built from the clone."""
    directory = source.with_name("from-clone")
    command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(source))
    _output(*command, cwd=source)
    (result,) = directory.glob("*.whl")
    return result


@pytest.fixture(scope="session", params=["wheel", "wheel_from_sdist", "editable", "clone"])
def installation(request: pytest.FixtureRequest, source: Path) -> Installation:
    """Each way to have hpc, in an environment of its own.

    The one beside clone0/ is clone/: a name that only starts like the environment's is not inside it.
    """
    site, python = _environment(source.with_name(request.param))
    if request.param == "clone":
        command = (str(python), str(source / "run.py"), "-m", "launch.dry_run=true")
        return Installation(python, source, command, pythonpath=str(source))
    editable = request.param == "editable"
    what = source if editable else request.getfixturevalue(request.param)
    how = ("--no-build-isolation", "--editable") if editable else ()
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--no-deps", "-I")
    _output(*pip, *how, str(what), cwd=source, PYTHONPATH="")
    return Installation(python, source if editable else site, (str(python.with_name("hpc")), "script"))


def _environment(directory: Path) -> tuple[Path, Path]:
    """A new environment that sees this one's packages; returns its site-packages and its python.

    An editable hpc of this environment stays unseen: Python reads no .pth file in a directory that is itself named
    in a .pth file.
    """
    venv.create(directory, symlinks=True)
    (site,) = directory.glob("lib/python*/site-packages")
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(packages))
    return site, directory / "bin" / "python"


def _files(directory: Path, *names: str) -> set[str]:
    paths = [path for name in names for path in (directory / name).rglob("*")]
    return {str(path.relative_to(directory)) for path in paths if path.is_file()}


def _checksums(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_a_wheel_holds_the_packages_with_their_data_and_no_more(wheel: Path, source: Path) -> None:
    names = {name for name in _checksums(wheel) if ".dist-info/" not in name}
    assert names == _files(source, *PACKAGES) | {f"hpc/{name}" for name in _files(source, *DATA)}
    assert {"hpc/conf/config.yaml", "hpc/slurm_templates/epilogue.sh", "hydra_plugins/hpc/launcher.py"} <= names
    assert "hydra_plugins/__init__.py" not in names, "it would hide every other plugin of the environment"


def test_pytest_is_asked_for_by_the_extra_alone_and_finds_the_fixtures_by_itself(wheel: Path) -> None:
    """`hpc.testing` is in every wheel, and costs nothing there that does not test."""
    with zipfile.ZipFile(wheel) as archive:
        assert {"hpc/testing/plugin.py", "hpc/testing/install.sh"} <= {*archive.namelist()}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        asked = re.findall(r"^Requires-Dist: pytest\b.*$", archive.read(metadata).decode(), re.MULTILINE)
        entries = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert asked
    assert all("extra == 'testing'" in each or "extra == 'dev'" in each for each in asked), asked
    assert "[pytest11]\nhpc.testing.plugin = hpc.testing.plugin\n" in entries


NO_PYTEST = """
import sys
sys.modules["pytest"] = None
import hpc, hpc.cli, hpc.submit.send, hpc.task.entry, hpc.testing, hpc.testing.cluster, hpc.testing.faults
"""


def test_without_pytest_all_of_it_works_but_the_fixtures(tmp_path: Path) -> None:
    assert _output(sys.executable, "-c", NO_PYTEST, cwd=tmp_path) == ""


def test_a_wheel_built_from_the_sdist_is_the_wheel_built_from_the_clone(wheel: Path, wheel_from_sdist: Path) -> None:
    assert _checksums(wheel_from_sdist) == _checksums(wheel)


def test_an_sdist_holds_the_whole_clone(sdist: Path, source: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert names == _files(source, ".") | {"PKG-INFO"}


def test_the_script_is_printed_in_an_empty_directory(
    installation: Installation, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    script = installation.script(empty, fake_slurm)
    assert "\n#SBATCH --gres=gpu:a100:8\n" in script
    assert (ROOT / "slurm_templates" / "epilogue.sh").read_text().rstrip() in script
    assert not list(empty.iterdir())


def test_the_job_imports_the_hpc_that_submitted_it(
    installation: Installation, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    script = installation.script(tmp_path, fake_slurm, "launch.snapshot=false")
    (pythonpath,) = re.findall(r"^export PYTHONPATH=(.*)$", script, re.MULTILINE)
    (python,) = re.findall(r"(\S+) -u -m hpc\.submit\.", script)
    found = _output(python, "-c", "import hpc; print(hpc.__file__)", cwd=tmp_path, PYTHONPATH=pythonpath)
    assert found == f"{installation.home / 'hpc' / '__init__.py'}\n"


def test_a_new_project_trains_and_passes_its_own_test(installation: Installation, tmp_path: Path) -> None:
    """Every installation writes the same files; what trains is the wheel, as a stranger has it."""
    command = (str(installation.python), "-m", "hpc", "init", "project", "mine")
    _output(*command, cwd=tmp_path, PYTHONPATH=installation.pythonpath)
    templates = {path.removesuffix(".j2") for path in _files(ROOT / "hpc" / "project" / "template", ".")}
    assert _files(tmp_path / "mine", ".") == templates
    if installation.python.parent.parent.name == "wheel":
        _output(str(installation.python), "-m", "pytest", "-q", cwd=tmp_path / "mine", PYTHONPATH="")


def test_another_hydra_app_sees_the_groups(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)
    (tmp_path / "app.py").write_text(APP)
    printed = _output(str(installation.python), "app.py", cwd=tmp_path, PYTHONPATH=installation.pythonpath)
    gpus, *found = printed.splitlines()
    assert gpus == "8"
    assert [path for path in found if not Path(path).is_relative_to(installation.home)] == []

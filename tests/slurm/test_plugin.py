"""The page on tests keeps its word, and a pytest that has no use for the plugin does not notice it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.testing import plugin
from hpc.testing.faults import Faults
from tests.conftest import ROOT, clean_environment

PAGE = (ROOT / "docs" / "testing.md").read_text()
FILES = dict(re.findall(r"`([\w.]+)`(?:, asks[^`]*|)[^`]*\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
USELESS = "def test_without_any_cluster(): pass\n"
SKIPPED = "def test_with_a_cluster(slurm): pass\n"
IMPORTED = """
import sys
import pytest
class Look:
    def pytest_sessionfinish(self):
        print(sorted(name for name in sys.modules if name.startswith(("hpc.", "torch"))))
sys.exit(pytest.main(["-q", "-p", "hpc.testing.plugin", "test_it.py"], plugins=[Look()]))
"""


def in_a_project_of_ones_own(directory: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), **environ}
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.mark.slurm
@pytest.mark.faults
def test_the_loop_on_the_page_survives_what_the_page_does_to_it(tmp_path: Path) -> None:
    assert {*FILES} == {"train.py", "job.sh", "test_train.py"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = in_a_project_of_ones_own(tmp_path, "-m", "pytest", "-q", "-p", "hpc.testing.plugin", "test_train.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_every_fixture_is_on_the_page_and_every_fault_has_one() -> None:
    shown = {*re.findall(r"^\| `(\w+)", PAGE, re.MULTILINE)}
    faults = {name for name in vars(Faults) if not name.startswith("_")}
    undoing = {"network_heal", "free_disk", "node_up", "slurmd_start", "controller_down", "controller_up"}
    assert shown == (faults - undoing) | {"faults"}
    assert all(hasattr(plugin, name) for name in shown)
    assert all(f"`{name}`" in PAGE for name in undoing)


def test_a_pytest_without_clusters_imports_the_plugin_alone(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(USELESS)
    done = in_a_project_of_ones_own(tmp_path, "-c", IMPORTED)
    assert "['hpc.testing', 'hpc.testing.plugin']" in done.stdout, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize(("ci", "ended"), [("false", "1 skipped"), ("true", "1 error")])
def test_without_slurm_a_test_is_skipped_with_a_sentence_and_fails_in_ci(tmp_path: Path, ci: str, ended: str) -> None:
    (tmp_path / "test_it.py").write_text(SKIPPED)
    command = ("-m", "pytest", "-q", "-rsE", "-p", "hpc.testing.plugin", "test_it.py")
    done = in_a_project_of_ones_own(tmp_path, *command, PATH=str(tmp_path), CI=ci)
    assert ended in done.stdout, done.stdout + done.stderr
    assert re.search(r"A real Slurm needs (root|munged)", done.stdout)

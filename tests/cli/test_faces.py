"""What every verb has in common for those who read it: programs, narrow terminals, and terminals without colours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpc.cli import main
from tests.cli.test_current_directory import verbs
from tests.conftest import FakeSlurm, Run, clean_environment, runner
from tests.support.sweeps import hpc, in_every_state, told_by

ANSWERS_ARE_TEXT = {"run", "script", "completion"}
"""What a shell, sbatch or a person reads as it is."""
VERBS = sorted({*verbs(main)} - {"run", "script"})


def _help(*words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--help"], env={"COLUMNS": "80"}, prog_name="hpc")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("verb", VERBS)
def test_its_help_fits_and_it_speaks_json(verb: str) -> None:
    text = _help(*verb.split())
    assert max(map(len, text.splitlines())) <= 80
    assert ("--json" in text) is (verb not in ANSWERS_ARE_TEXT)


@pytest.mark.parametrize(
    "question", [{}, {"_HPC_COMPLETE": "bash_complete", "COMP_WORDS": "hpc st", "COMP_CWORD": "1"}]
)
def test_a_list_of_verbs_imports_none_of_them(question: dict[str, str], tmp_path: Path) -> None:
    run = runner(tmp_path, "-c", "from hpc.cli import main; main(prog_name='hpc')")
    done = run("--help", environ={**question, "PYTHONPROFILEIMPORTTIME": "1"})
    assert ("status" in done.stdout, "cancel" in done.stdout) == (True, not question)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported & {"hpc.cli.lazy", *(verb.place.partition(":")[0] for verb in main.verbs.values())} == {
        "hpc.cli.lazy"
    }


@pytest.mark.parametrize("words", [(), ("checkpoint",), ("init",)])
def test_no_sentence_of_a_list_of_verbs_is_cut(words: tuple[str, ...]) -> None:
    assert "..." not in _help(*words).replace("COMMAND [ARGS]...", "")


def test_what_is_typed_to_train_and_submit_is_explained_before_the_settings(run_hpc: Run) -> None:
    for verb, begin in (("run", "Usage: hpc run "), ("script", "`hpc script` takes the words of `hpc run -m`")):
        done = run_hpc(verb, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith(begin)
        assert "  -m, --multirun " in done.stdout
        assert "\nhardware:\n  name: laptop\n" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    line = f"{sys.executable} -m hpc run --help | head -n 1"
    done = subprocess.run(["bash", "-c", line], env=clean_environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Usage: hpc run [OPTIONS] [SETTING=VALUE]...\n", "")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_heard_on_a_terminal(no_color: str, coloured: bool, tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = in_every_state(tmp_path / "every", fake_slurm)
    environ = {**clean_environment(**fake_slurm.environ), "NO_COLOR": no_color}
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} -m hpc status {made.directory}", os.devnull],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert ("\x1b[" in done.stdout) is coloured


def test_logs_and_recipes_are_objects_too(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    made = in_every_state(tmp_path / "every", fake_slurm)
    log = made.directory / "0" / "logs" / "rank_0.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-11-29 05:00:00,000 INFO hpc: one\nbelow it\n")
    (entry,) = told_by(hpc(fake_slurm, "logs", made.directory, "0", "--json"))["entries"]
    assert entry["lines"] == ["2026-11-29 05:00:00,000 INFO hpc: one", "below it"]
    done = hpc(fake_slurm, "logs", made.directory, "0", "--json", "--follow")
    assert done.exit_code == 78
    told = told_by(hpc(fake_slurm, "image", "--json", "--base", "mine:1"))
    assert "ARG BASE=mine:1" in told["recipe"]

"""A point that is tried again runs the code of its submission, or today's when that is asked for; `hpc diff` tells."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hpc.run.events import Started
from tests.conftest import Completed, runner
from tests.support.events import told

TRAIN = """
from pathlib import Path

def train(cfg):
    Path("mine/helper.py").write_text("VALUE = 'edited'\\n")  # the live file; what is imported next is not
    from mine.helper import VALUE
    with Path("answers").open("a") as file:
        file.write(VALUE + "\\n")
    if VALUE != "edited":
        raise ValueError(VALUE)
    return VALUE
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "__init__.py").touch()
    (root / "mine" / "train.py").write_text(TRAIN)
    (root / "mine" / "helper.py").write_text("VALUE = 'submitted'\n")
    (root / ".gitignore").write_text("answers\nruns/\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True, capture_output=True)
    return root


def test_a_point_is_tried_again_with_its_code_or_with_todays(project: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    hpc = runner(project, "-m", "hpc")

    def typed(*words: str, code: int = 0) -> Completed:
        done = hpc(*words, environ=environ)
        assert done.returncode == code, done.stderr
        return done

    submit = ["run", "-m", "cluster=local", "hardware=laptop", "experiment.target=mine.train.train"]
    typed(*submit, "run_dir=runs/first", code=1)
    typed("retry", "runs/first", code=1)
    typed("retry", "runs/first", "--new-code")
    assert (project / "answers").read_text().split() == ["submitted", "submitted", "edited"]
    noted = (project / "runs" / "first" / "code.jsonl").read_text().splitlines()
    assert [json.loads(line).get("points") for line in noted] == [None, ["0"]]  # other points keep to their code
    typed(*submit, "run_dir=runs/second", "seed=1,2", "+api_key=hunter2")

    lives = told(project / "runs" / "first" / "0", Started)
    assert lives[0].tree == lives[1].tree != lives[2].tree
    assert typed("diff", "runs/first/0@1", "runs/first/0@2").stdout == "No difference.\n"
    assert typed("diff", "runs/first/0@1", f"runs/first/0@{lives[2].attempt}").stdout.splitlines() == [
        "code (--code shows the lines)",
        "  mine/helper.py  +1  -1",
    ]
    shown = typed("diff", "runs/first/0@1", "runs/second", "--code").stdout
    assert "seed     0" in shown
    assert "1,2\n" in shown
    assert "api_key" in shown
    assert "hunter2" not in shown
    assert "-VALUE = 'submitted'\n+VALUE = 'edited'\n" in shown
    answer = json.loads(typed("diff", "runs/first/0@1", "runs/second/1", "--json").stdout)
    assert answer["config"] == {"api_key": ["***", "***"], "seed": [0, 2]}
    assert answer["code"] == {"mine/helper.py": {"added": 1, "removed": 1}}
    assert answer["has_code"] == [True, True]
    assert answer["versions"] == {}

    (archive,) = (project / "runs" / "second").glob("code-*.zip")
    archive.write_bytes(archive.read_bytes()[:-1])
    refused = typed("diff", "runs/first", "runs/second", code=65)
    assert "must hold the code that was submitted, but does not (it has changed since)" in refused.stderr
    assert "must have a point 7, but has 1 others" in typed("diff", "runs/first/7", "runs/first", code=78).stderr
    assert "must have an attempt 9, but has 3 others" in typed("diff", "runs/first/0@9", "runs/first", code=78).stderr


def test_what_is_typed_elsewhere_has_no_new_code(project: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    submit = ("run", "-m", "cluster=local", "hardware=laptop", "experiment.target=mine.train.train", "run_dir=runs/a")
    runner(project, "-m", "hpc")(*submit, environ=environ)
    done = runner(tmp_path, "-m", "hpc")("retry", str(project / "runs" / "a"), "--new-code", environ=environ)
    assert done.returncode == 78
    assert f"--new-code must be typed in the project that was submitted, {project}." in done.stderr

"""What saves itself is committed, verified and passed over like everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpc.checkpoint.load import load_latest
from hpc.checkpoint.save import commit, snapshot
from hpc.checkpoint.state import TrainingState
from hpc.checkpoint.untrusted import read_manifest
from hpc.errors import LoadError, SaveError
from tests.support.saves import Alone, Life


class Engine:
    """Keeps a word in two files, one of them in a directory of its own."""

    is_shared = True

    def __init__(self, word: str) -> None:
        self.word = word
        self.weight = torch.ones(3)

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def save_files(self, directory: Path) -> None:
        if self.word == "unspeakable":
            raise OSError(28, "No space left on device")
        (directory / "step").mkdir()
        (directory / "step" / "word").write_text(self.word)
        (directory / "length").write_text(str(len(self.word)))

    def load_files(self, directory: Path) -> None:
        self.word = (directory / "step" / "word").read_text()
        if len(self.word) != int((directory / "length").read_text()):
            raise ValueError("the engine finds another length")


def save(life: Life, step: int, word: str) -> Path:
    state = TrainingState([], [], {}, engines={"engine": Engine(word)})
    return commit(life.store, Alone(), snapshot(state, step, 0, {"step": step}, {})).directory


def load(life: Life, reports: list[str]) -> str:
    engine = Engine("")
    load_latest(life.store, TrainingState([], [], {}, engines={"engine": engine}), Alone(), reports.append)
    return engine.word


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "checkpoints")


def test_an_engines_files_are_in_the_manifest_and_come_back(life: Life) -> None:
    files = read_manifest(save(life, 1, "first")).written.files
    assert {"engine/length", "engine/step/word", "trainer.pt"} == files.keys()
    assert load(life, []) == "first"


def test_a_damaged_file_of_an_engine_is_named_and_passed_over(life: Life) -> None:
    save(life, 1, "first")
    (save(life, 2, "second") / "engine" / "step" / "word").write_text("sEcond")
    reports: list[str] = []
    assert load(life, reports) == "first"
    assert "word does not have the checksum it was written with" in reports[0]


def test_an_engine_that_refuses_what_is_whole_ends_the_run(life: Life) -> None:
    class Other(Engine):
        def load_files(self, directory: Path) -> None:
            raise ValueError(f"{directory.name} is of another engine")

    save(life, 1, "first")
    state = TrainingState([], [], {}, engines={"engine": Other("")})
    with pytest.raises(LoadError, match="does not fit what is being trained: engine is of another engine"):
        load_latest(life.store, state, Alone(), print)


def test_an_engine_that_cannot_write_leaves_the_older_checkpoint(life: Life) -> None:
    save(life, 1, "first")
    with pytest.raises(SaveError, match="its file system is full"):
        save(life, 2, "unspeakable")
    assert load(life, []) == "first"

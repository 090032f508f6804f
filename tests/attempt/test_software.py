"""Is another Python, or another torch, said when a run goes on with it?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hpc.attempt.software import with_software
from hpc.run.code import Code
from hpc.run.events import Started
from hpc.run.journal import Journal

STARTED = Started("none", 1, ())


def test_another_python_or_torch_than_in_the_life_before_is_one_sentence(tmp_path: Path) -> None:
    first, sentence = with_software(STARTED, tmp_path)
    assert sentence == ""
    assert first.versions["hydra-core"]
    Journal(tmp_path, "first").write(first)
    assert with_software(STARTED, tmp_path)[1] == ""
    Journal(tmp_path, "second").write(replace(first, versions={**first.versions, "torch": "1.0.0"}))
    now = f"This life has Python {first.python} ({first.interpreter}) and torch {first.versions['torch']}"
    before = f"the life before had Python {first.python} ({first.interpreter}) and torch 1.0.0"
    assert with_software(STARTED, tmp_path)[1] == f"{now}, and {before}: results may differ from here on."


def test_the_first_life_is_compared_with_the_submission_and_tells_what_has_changed(tmp_path: Path) -> None:
    installed = with_software(STARTED, tmp_path)[0]
    submitted = {**installed.versions, "omegaconf": "0.0.1", "gone": "1"}
    record = {"python": installed.python, "interpreter": installed.interpreter, "versions": submitted}
    Code(record).write(tmp_path, [])
    now, sentence = with_software(STARTED, tmp_path / "0")
    assert sentence == ""
    names = {"torch", "omegaconf"}
    assert now.versions == {"gone": "", **{name: installed.versions[name] for name in names}}
    line = json.loads((tmp_path / "code.jsonl").read_text())
    (tmp_path / "code.jsonl").write_text(json.dumps({**line, "python": "3.9.0"}) + "\n")
    assert "and the submission had Python 3.9.0 (" in with_software(STARTED, tmp_path / "0")[1]

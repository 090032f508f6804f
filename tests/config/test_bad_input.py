"""Whatever is wrong in a command line, a config or a state file: one sentence, an exit code, and nothing written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.config.bad_input import CONFIG, JOB, Bad, every_bad_input
from tests.conftest import COUNTS, FakeSlurm, clean_environment
from tests.support.commands import Commands

WORKERS = 2
SENTENCE = re.compile(r"hpc: \S.+\.\n")


def listing(directory: Path) -> list[tuple[str, bytes]]:
    """Every file and directory below, with what is in it."""
    paths = sorted(directory.rglob("*"))
    return [(str(path.relative_to(directory)), path.read_bytes() if path.is_file() else b"") for path in paths]


def prepare(directory: Path, bad: Bad) -> None:
    """A user's project: a config as the README shows it, a module, and what is wrong in this case."""
    files = {"conf/config.yaml": CONFIG, "job.py": JOB, **bad.files}
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())


def complaint(commands: Commands, directory: Path, bad: Bad) -> str:
    """What is not as it should be, or ""."""
    prepare(directory, bad)
    before = listing(directory)
    done = commands.run(bad.arguments, directory)
    if done.code != bad.code:
        return f"code {done.code}: {done.errors[-300:]}{done.output[-200:]}"
    if not SENTENCE.fullmatch(done.errors):
        return f"not one sentence: {done.errors[-600:]}"
    if not all(word in done.errors for word in bad.words):
        return f"does not name {bad.words}: {done.errors}"
    return "" if listing(directory) == before else f"wrote {sorted(set(listing(directory)) - set(before))}"


def complaints(cases: Sequence[Bad], directory: Path, environ: dict[str, str]) -> list[str]:
    """Of all cases, in parallel."""
    idle: SimpleQueue[Commands] = SimpleQueue()

    def one(number: int) -> str:
        place = directory / f"{number:03}"
        place.mkdir()
        commands = idle.get()
        try:
            return complaint(commands, place, cases[number])
        finally:
            idle.put(commands)

    with Commands(environ, directory) as first, Commands(environ, directory) as second:
        for server in (first, second):
            idle.put(server)
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(one, range(len(cases))))


def test_every_bad_input_gets_one_sentence_and_writes_nothing(
    tmp_path: Path, fake_slurm: FakeSlurm, record_property: Callable[[str, object], None]
) -> None:
    cases = list(every_bad_input())
    environ = clean_environment(**fake_slurm.environ, PYTHONDONTWRITEBYTECODE="1")
    (tmp_path / "cases").mkdir()
    found = complaints(cases, tmp_path / "cases", environ)
    wrong = [
        f"{' '.join(case.arguments)} {case.files}\n    {what}" for case, what in zip(cases, found, strict=True) if what
    ]
    codes = Counter(case.code for case in cases)
    counts = f"{len(cases)} bad inputs: {codes[78]} with code 78, {codes[65]} with 65; {len(wrong)} wrong"
    record_property(COUNTS, counts)
    assert len(cases) >= 200
    assert not wrong, "\n".join(wrong)
    assert fake_slurm.scripts == []

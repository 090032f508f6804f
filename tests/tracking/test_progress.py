"""A bar on a terminal, plain lines in a log."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.conftest import ROOT, Run
from tests.support.terminal import on_a_terminal, rendered

JOB = ("run_dir=out", "experiment.target=tests.programs.jobs.train", "steps=40", "+job={step_seconds:0.05}")


def test_a_terminal_shows_a_bar_with_loss_speed_and_time_left(tmp_path: Path) -> None:
    seen = on_a_terminal(tmp_path, sys.executable, str(ROOT / "run.py"), *JOB, "checkpoint.every_steps=7")
    assert "40/40" in seen
    assert "loss=" in seen
    assert "samples/s" in seen
    assert "<" in seen  # tqdm writes elapsed<left
    assert "step 40/40" not in seen


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
SPEAKERS = """
import logging, sys, threading, time, warnings
from hpc.say import error, fail, phase, say, set_up, warn
from hpc import say as voice
from hpc.tracking.progress import Progress

voice.PHASE_SECONDS = 0.01
set_up(0)
progress = Progress(total=60, step=0)

def speak_aside():
    for number in range(30):
        say(f"aside {number}")
        time.sleep(0.005)

aside = threading.Thread(target=speak_aside)
aside.start()
for step in range(1, 61):
    time.sleep(0.005)
    progress.show(step, {"loss": 1 / step}, "548 tokens/s")
    say(f"said at {step}")
    if step == 20:
        warn("a warning")
        error("an error")
        warnings.warn("one of Python's")
        logging.getLogger("theirs").info("one of a library's")
    if step == 40:
        with phase("Doing nothing"):
            time.sleep(0.2)
aside.join()
progress.close()
say("the end")
"""


def test_nothing_that_is_said_lands_inside_the_bar(tmp_path: Path) -> None:
    lines = rendered(on_a_terminal(tmp_path, sys.executable, "-c", SPEAKERS))
    bars = [line for line in lines if "548 tokens/s" in line]
    assert len(bars) == 1  # the others were drawn over
    assert "| 60/60 [" in bars[0]
    ours = [line for line in lines if line.startswith(("said at", "aside", "hpc:", "Doing", "the end"))]
    whole = [f"said at {step}" for step in range(1, 61)] + [f"aside {number}" for number in range(30)]
    assert sorted(ours) == sorted([*whole, "hpc: a warning", "hpc: an error", "Doing nothing ...", "the end"])
    others = [line for line in lines if line not in (*ours, *bars)]
    patterns = [
        rf"{TIME} WARNING py.warnings: .*: UserWarning: one of Python's",
        rf"{TIME} INFO theirs: one of a library's",
    ]
    assert [bool(re.fullmatch(*pair)) for pair in zip([*patterns, ""], others, strict=True)] == [True, True, True]


def test_a_log_gets_lines(run_py: Run) -> None:
    done = run_py(*JOB)
    assert "step 40/40  loss " in done.stdout
    assert "samples/s" in done.stdout
    assert "%|" not in done.stdout + done.stderr

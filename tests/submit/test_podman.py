"""Podman in earnest: a user of this machine, who is not root, runs a batch script whose rank is in a container.

What root must do for that user happens in a mount namespace of its own: numbers for the users inside, and what a
machine without systemd has not mounted.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc.run.events import Resumed, Started, Stopped
from tests.conftest import ROOT, Completed, FakeSlurm, clean_environment
from tests.submit.test_containers import JOB, NOTE, SRUN
from tests.support.events import told
from tests.support.image import MOUNT, PYTHON, make_image
from tests.support.strangers import NAME, why_there_is_none

pytestmark = pytest.mark.faults
IMAGE = "localhost/project:1"
XDG = ("RUNTIME_DIR", "CONFIG_HOME", "STATE_HOME")
UID, GROUP = pwd.getpwnam(NAME)[2:4]
QUEUES = Path("/dev/mqueue")
NAMESPACE = """
set -e
for name in subuid subgid; do mount --bind "$1/$name" /etc/$name; done
mountpoint -q /dev/mqueue || { mkdir -p /dev/mqueue && mount -t mqueue mqueue /dev/mqueue; }
shift
exec "$@"
"""
TRAIN = """
import json, os, pathlib
from tests.programs import jobs

def train(cfg):
    told = {name: os.environ.get(name) for name in ("HOME", "WANDB_NOTE", "HTTPS_PROXY", "PYTHONHOME_OF_THE_HOST")}
    told |= {"user": os.getuid(), "cgroup": pathlib.Path("/proc/self/cgroup").read_text()}
    pathlib.Path(cfg.run_dir, "told.json").write_text(json.dumps(told))
    return jobs.train(cfg)
"""


@dataclass(frozen=True)
class User:
    """Who has Podman, a project and a Slurm whose srun runs one rank here.

    Args:
        place: Theirs.
        slurm: On their PATH.
        podman: Options that every command of Podman's needs here.
    """

    place: Path
    slurm: FakeSlurm
    podman: tuple[str, ...]

    @property
    def environ(self) -> dict[str, str]:
        """Of their shell."""
        path = f"{self.slurm.directory / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        private = {"HOME": str(self.place), **{f"XDG_{each}": str(self.place / "run") for each in XDG}}
        return {**clean_environment(**self.slurm.environ), **private, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, *words: object) -> list[str]:
        """What root starts for them to run a command; root's group lets them in, as in tests/support/strangers.py."""
        user = ["setpriv", f"--reuid={NAME}", f"--regid={GROUP}", "--groups=0", *map(str, words)]
        return ["unshare", "--mount", "sh", "-c", NAMESPACE, "namespace", str(self.place), *user]

    def run(self, *words: object) -> Completed:
        """Wait for a command of theirs."""
        return subprocess.run(
            self.command(*words), cwd=self.place, env=self.environ, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def queues() -> Iterator[None]:
    """The directory of message queues, which a container with the machine's own IPC has to see, is left as it was."""
    were_there = QUEUES.exists()
    yield
    if not were_there and QUEUES.exists():
        QUEUES.rmdir()


@pytest.fixture
def user(fake_slurm: FakeSlurm) -> Iterator[User]:
    """Somebody with an image; where Podman cannot run, its own words say why the test is skipped."""
    for program in ("podman", "unshare", "newuidmap"):
        if not shutil.which(program):
            pytest.skip(f"needs {program} on PATH")
    if why_there_is_none():
        pytest.skip(why_there_is_none())
    with tempfile.TemporaryDirectory(prefix="hpc-podman-", dir="/var/tmp") as name:  # not below /tmp, which is mounted
        place = Path(name)
        make_image(place / "image")
        slurm = FakeSlurm(place / "slurm")
        shutil.copytree(fake_slurm.directory, slurm.directory)
        (slurm.directory / "bin" / "srun").write_text(SRUN)
        (place / "run").mkdir(mode=0o700)
        (place / "my_train.py").write_text(TRAIN)
        for path in (place / "subuid", place / "subgid"):
            path.write_text(f"{NAME}:100000:65536\n")
        _own(place, place / "run", slurm.directory, *slurm.directory.rglob("*"))
        bare = User(place, slurm, ())
        try:
            yield User(place, slurm, _podman(bare))
        finally:
            bare.run("podman", "unshare", "rm", "-rf", place / "store")
            _end_what_holds_the_namespace(place / "run")


def _end_what_holds_the_namespace(run: Path) -> None:
    """Podman keeps a process of its own, as long as its user is there."""
    for path in run.rglob("pause.pid"):
        os.kill(int(path.read_text()), signal.SIGTERM)


def _own(*paths: Path) -> None:
    for path in paths:
        shutil.chown(path, NAME)
        path.chmod(path.stat().st_mode | 0o055)


def _podman(user: User) -> tuple[str, ...]:
    """The image is read in, and one of the two programs that start containers has started one of it."""
    own = (f"--root={user.place / 'store'}", f"--runroot={user.place / 'run' / 'podman'}", "--storage-driver=vfs")
    packed = f"tar -C {user.place / 'image'} -c . | podman {shlex.join(own)} import - {IMAGE}"
    said = [user.run("sh", "-c", packed)]
    for runtime in ("crun", "runc"):
        options = (*own, f"--runtime={runtime}")
        said.append(user.run("podman", "run", *options, "--rm", "--network=none", "--ipc=host", IMAGE, PYTHON, "-V"))
        if said[-1].returncode == 0:
            return options
    pytest.skip("; ".join(f"Podman says {done.stderr.strip().splitlines()[-1:]}" for done in said))


def test_a_rank_in_podman_is_who_submitted_it_and_stops_when_it_is_told(user: User) -> None:
    """The signal to what srun started arrives at Python inside, which saves; a second life goes on from there."""
    done = user.run(
        *(sys.executable, "-m", "hpc", "run", "--config-path", ROOT / "conf", "-m", "cluster=slurm"),
        *("hardware=cpu", "hardware.tasks_per_node=1", "run_dir=out", "launch.snapshot=false"),
        *("experiment.target=my_train.train", "+job={step_seconds:0.2}"),
        *("steps=60", "container=podman", f"container.image={IMAGE}", f"container.python={PYTHON}"),
        *(f"container.mounts={[MOUNT, str(ROOT)]}", f"container.options={[*user.podman]}"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    point, script = user.place / "out" / "0", user.slurm.scripts[-1]
    with subprocess.Popen(
        user.command("env", *(f"{name}={value}" for name, value in JOB.items()), "bash", "-c", script),
        cwd=user.place, env=user.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        _wait_for_training(point, first)
        os.kill(int((user.slurm.directory / "pid").read_text()), signal.SIGUSR2)
        said = first.communicate(timeout=300)[1]
    assert [event.cause for event in told(point, Stopped)] == ["SIGUSR2"], said
    again = {**JOB, "SLURM_RESTART_COUNT": "1"}
    done = user.run("env", *(f"{name}={value}" for name, value in again.items()), "bash", "-c", script)
    assert done.returncode == 0, done.stderr
    stopped = told(point, Stopped)[0].step
    assert [event.step for event in told(point, Resumed)] == [0, stopped]
    assert [event.interpreter for event in told(point, Started)] == [PYTHON] * 2
    assert json.loads((point / "told.json").read_text()) == {
        "HOME": f"/tmp/hpc-home-{UID}", "WANDB_NOTE": NOTE, "HTTPS_PROXY": JOB["HTTPS_PROXY"],
        "PYTHONHOME_OF_THE_HOST": None, "user": UID, "cgroup": Path("/proc/self/cgroup").read_text(),
    }  # fmt: skip
    assert {path.stat().st_uid for path in point.rglob("*")} == {UID}


def _wait_for_training(point: Path, life: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not told(point, Resumed):
        assert life.poll() is None, life.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)

"""Containers: what is sent for each runtime, what it starts, and what is refused on the login node and on a node.

`python -m tests.submit.test_containers` writes tests/submit/golden/ anew.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hpc.config.schema import CONTAINER_RUNTIMES
from hpc.errors import ConfigurationError
from hpc.paths import TEMPLATE_DIR
from hpc.submit.base_image import base_image, image_for
from tests.conftest import ROOT, Completed, FakeSlurm, Run, clean_environment, runner

GOLDEN = Path(__file__).parent / "golden"
SCRIPT = (
    *("script", "hardware=8xA100", "run_dir=runs/out", "launch.snapshot=false"),
    *("+cluster.environment.NCCL_SOCKET_IFNAME=hsn0", "container.options=[--further]"),
)
IMAGES = {
    "apptainer": "pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime",
    "pyxis": "nvcr.io/nvidia/pytorch:25.09-py3",
    "podman": "localhost/project:1",
    "docker": "project:1",
    "charliecloud": "/images/project.sqfs",
}


def printed(directory: Path, runtime: str) -> str:
    """The script for one runtime, with names in the place of this machine's paths and of what is alike in all."""
    mounts = "container.mounts=[/data,/sets/a:/in]" if runtime == "charliecloud" else "container.mounts=[/data:/in:ro]"
    gpu = "hardware.gpu_type=mi250" if runtime == "podman" else "hardware.gpu_type=a100"
    run = runner(directory, "-m", "hpc")
    arguments = (*SCRIPT, f"container={runtime}", f"container.image={IMAGES[runtime]}", mounts, gpu)
    done = run(*arguments, environ={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    text = done.stdout[done.stdout.index("#!/bin/bash") :]  # a slow machine says first that it is composing
    for path in TEMPLATE_DIR.glob("*.sh"):
        whole = path.read_text().rstrip("\n")
        text = text.replace(whole, f"<{path.name}>").replace(shlex.quote(f"{whole}\n"), f"'<{path.name}>'")
    text = text.replace(f"/tmp/hpc-home-{os.getuid()}", "/tmp/hpc-home-UID")
    text = text.replace(f"--user={os.getuid()}:{os.getgid()}", "--user=UID:GID")
    text = text.replace(" --userns=keep-id --group-add=keep-groups", "")  # root needs none
    python_path = next(line for line in text.splitlines() if line.startswith("export PYTHONPATH="))
    return text.replace(python_path, "export PYTHONPATH=...").replace(str(directory), "/project")


@pytest.mark.parametrize("runtime", CONTAINER_RUNTIMES)
def test_the_whole_script_is_as_recorded(runtime: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hpc-", dir="/var/tmp") as directory:  # not below /tmp, which is mounted
        assert printed(Path(directory).resolve(), runtime) == (GOLDEN / f"{runtime}.sh").read_text()


TRAIN = """
import json, os, pathlib, sys

def train(cfg):
    told = {"pid": os.getpid(), "environ": dict(os.environ), "directory": os.getcwd(), "file": __file__}
    pathlib.Path(cfg.run_dir, "told.json").write_text(json.dumps(told))
    return 1.5
"""
SRUN = """#!/bin/bash
[ "$1" = --help ] && exit
while [[ $1 == -* ]]; do
    [ "$1" = --output ] && shift
    shift
done
echo $$ >"$FAKE_SLURM/pid"
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=node1
export SLURM_STEP_TASKS_PER_NODE=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
exec "$@"
"""
NOTE = "two\nlines for $HOME \"and `date` it's"
JOB = {
    "SLURM_JOB_ID": "9",
    "SLURM_CLUSTER_NAME": "lab",
    "CUDA_VISIBLE_DEVICES": "2,3",
    "PYTHONHOME_OF_THE_HOST": "/x",
    "HTTPS_PROXY": "http://proxy:3128",
    "WANDB_NOTE": NOTE,
}


@pytest.fixture
def node(fake_slurm: FakeSlurm, tmp_path: Path) -> FakeSlurm:
    """A Slurm whose srun runs one rank here, and a project."""
    fake_slurm_srun = fake_slurm.directory / "bin" / "srun"
    fake_slurm_srun.write_text(SRUN)
    (tmp_path / "my_train.py").write_text(TRAIN)
    return fake_slurm


def add_runtime(node: FakeSlurm, name: str) -> None:
    """Put a runtime on the node's PATH; the login node has none."""
    directory = node.directory / "node_bin"
    directory.mkdir(exist_ok=True)
    fake = ROOT / "tests" / "support" / "fake_runtime.py"
    words = shlex.join([sys.executable, "-IS", str(fake), str(node.directory), name])
    (directory / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (directory / "nvidia-smi").write_text('#!/bin/sh\n[ "$1" = --id=2,3 ] && printf "GPU-a\\nGPU-b\\n"\n')
    for path in directory.iterdir():
        path.chmod(0o755)


def submit(node: FakeSlurm, run_hpc: Run, *arguments: str) -> str:
    """Send it; returns the script."""
    done = run_hpc(
        *("run", "--config-path", str(ROOT / "conf"), "-m", "hardware=1xA100", "run_dir=out"),
        *("experiment.target=my_train.train", f"container.python={sys.executable}", *arguments),
        environ=node.environ,
    )
    assert done.returncode == 0, done.stderr
    return node.scripts[-1]


def run_script(node: FakeSlurm, script: str, cwd: Path) -> Completed:
    """As slurmd runs it on a node."""
    path = f"{node.directory / 'node_bin'}:{node.directory / 'bin'}:/usr/bin:/bin"
    environ = {**clean_environment(), **node.environ, **JOB, "PATH": path}
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=environ, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    ("runtime", "program", "image"),
    [
        ("apptainer", "apptainer", "docker://project:1"),
        ("podman", "podman", "project:1"),
        ("docker", "docker", "project:1"),
        ("charliecloud", "ch-run", "project"),
    ],
)
def test_a_rank_is_the_process_that_srun_started_and_sees_what_it_should(
    node: FakeSlurm, run_hpc: Run, tmp_path: Path, runtime: str, program: str, image: str
) -> None:
    path = f"/of/the/host:{node.directory}/node_bin:{node.directory}/bin:/usr/bin:/bin"
    environment = ("+cluster.environment.API_KEY=sesame-street-1234", f"+cluster.environment.PATH='{path}'")
    script = submit(node, run_hpc, f"container={runtime}", f"container.image={image}", *environment)
    assert "sesame" not in script
    add_runtime(node, program)
    done = run_script(node, script, tmp_path)
    assert done.returncode == 0, done.stderr
    probe, rank = [json.loads(line) for line in (node.directory / "calls.jsonl").read_text().splitlines()]
    told = json.loads((tmp_path / "out" / "0" / "told.json").read_text())
    assert told["pid"] == rank["pid"] == int((node.directory / "pid").read_text()) != probe["pid"]
    assert told["directory"] == str(tmp_path)
    assert "hpc-code-" in told["file"]  # the snapshot, not what lies in the project
    inside: dict[str, Any] = told["environ"]
    assert {name: inside.get(name) for name in ("API_KEY", "SLURM_PROCID", "WANDB_NOTE", "PYTHONNOUSERSITE")} == {
        "API_KEY": "sesame-street-1234", "SLURM_PROCID": "0", "WANDB_NOTE": NOTE, "PYTHONNOUSERSITE": "1",
    }  # fmt: skip
    assert "PYTHONHOME_OF_THE_HOST" not in inside
    assert "/of/the/host" not in inside["PATH"]
    assert not any("sesame" in word for word in rank["argv"])
    gpus = [word for word in rank["argv"] if word == "--nv" or "gpu" in word]
    assert gpus == {
        "apptainer": ["--nv"], "podman": ["--device=nvidia.com/gpu=all"], "docker": ['--gpus="device=GPU-a,GPU-b"'],
    }.get(runtime, [])  # fmt: skip
    assert ("CUDA_VISIBLE_DEVICES" in inside) is (runtime != "docker")


def test_what_a_node_lacks_is_one_sentence_and_no_retry(node: FakeSlurm, run_hpc: Run, tmp_path: Path) -> None:
    """The runtime, the image, Python in it, and packages for that Python, in turn."""
    (tmp_path / "image.sif").touch()
    script = submit(node, run_hpc, "container=apptainer", "container.image=image.sif")

    def sentence(script: str) -> str:
        done = run_script(node, script, tmp_path)
        assert done.returncode == 78, done.stderr
        assert not (tmp_path / "out" / "0" / "told.json").exists()
        assert done.stderr.startswith("hpc: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "container=apptainer needs apptainer on PATH, but node" in sentence(script)
    add_runtime(node, "apptainer")
    (tmp_path / "image.sif").unlink()
    assert f"must be readable on every node, but {tmp_path}/image.sif is not on node" in sentence(script)
    (tmp_path / "image.sif").touch()
    (tmp_path / "bare").write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'hpc'\" >&2\nexit 1\n")
    (tmp_path / "bare").chmod(0o755)
    for python, said in (("/no/python3", "No such file"), (str(tmp_path / "bare"), "No module named 'hpc'")):
        assert said in sentence(script.replace(sys.executable, python))
    (archive,) = (tmp_path / "out").glob("code-*.zip")
    archive.write_bytes(b"another")
    assert "must hold the code that was submitted" in sentence(script)


def test_pyxis_is_a_word_to_srun(node: FakeSlurm, run_hpc: Run, tmp_path: Path) -> None:
    script = submit(node, run_hpc, "container=pyxis", "container.image=project:1")
    without = run_script(node, script, tmp_path)
    assert (without.returncode, without.stderr.count("\n")) == (78, 1)
    assert "has no --container-image" in without.stderr
    srun = node.directory / "bin" / "srun"
    srun.write_text(SRUN.replace("&& exit", "&& echo '  --container-image=' && exit"))
    done = run_script(node, script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "0" / "told.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["container.image=x:1"], "container must be one of apptainer, pyxis, podman, docker, charliecloud beside"),
        (["container=rkt"], "container must be one of apptainer, auto, charliecloud, docker, none, podman, pyxis"),
        (["container=podman", "container.image='a b'"], "container.image must be a name without any of"),
        (["container=podman", "container.image='a\"b'"], "container.image must be a name without any of"),
        (["container=apptainer", "container.image=missing.sif"], "that is there, or a name in a registry, but"),
        (["container=docker", "container.image=/x.sif"], "container.image must be the name of an image for docker"),
        (["container=podman", "container.image=x", "container.mounts=[/no/data]"], "/no/data is not"),
        (["container=podman", "container.image=x", "container.mounts=['/tmp:in']"], "but has '/tmp:in'"),
        (["container=podman", "container.image=x", "container.mounts=['/a,b']"], "must be without any of : ,"),
        (
            ["container=pyxis", "container.image=x", "container.mounts=['/etc:/a b']"],
            "must be without blanks for pyxis",
        ),
        (["container=charliecloud", "container.image=x", "container.mounts=['/etc:/e:ro']"], "cannot do that"),
        (["container=podman", "hardware.gpu_type=mi250"], "container.image must be given for AMD's GPUs"),
        (["container=podman", "container.image=x", "cluster=local", "runtime.device=cpu"], "must be none on this"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = run_py("-m", "hardware=1xA100", "run_dir=runs/out", *arguments, environ=fake_slurm.environ)
    assert done.returncode == 78, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert fake_slurm.scripts == []
    assert not (tmp_path / "runs").exists()


def test_a_site_may_say_which_runtime_it_has(run_hpc: Run) -> None:
    site = ("script", "hardware=8xA100", "run_dir=out", "cluster.container=apptainer")
    assert "apptainer" not in run_hpc(*site).stdout
    assert "apptainer exec" in run_hpc(*site, "container.image=x:1").stdout
    assert "apptainer" not in run_hpc(*site, "container.image=x:1", "container=none").stdout


def test_a_run_in_this_process_is_in_no_container(run_py: Run) -> None:
    done = run_py("container=podman", "container.image=x", "run_dir=out")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "container must be none on this machine, but is podman" in done.stderr


@pytest.mark.parametrize(
    ("torch", "image"),
    [
        ("2.9.1+cu130", "pytorch/pytorch:2.9.1-cuda13.0-cudnn9-runtime"),
        ("2.9.1+cpu", "pytorch/pytorch:2.9.1-cuda12.8-cudnn9-runtime"),
        ("2.13.0", "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"),
        ("2.10.0+rocm6.4", "pytorch/pytorch:2.10.0-cuda12.8-cudnn9-runtime"),
        ("2.14.0.dev20261101+cu130", None),
        ("3.0.0", None),
        ("", None),
    ],
)
def test_the_default_image_has_the_torch_that_is_installed(torch: str, image: str | None) -> None:
    assert image_for(torch) == image


def test_a_torch_without_an_image_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpc.submit.base_image.version", lambda _: "2.14.0a0+git123")
    with pytest.raises(ConfigurationError, match=r"no image of pytorch/pytorch is known for torch 2\.14\.0a0"):
        base_image()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in CONTAINER_RUNTIMES:
        with tempfile.TemporaryDirectory(prefix="hpc-", dir="/var/tmp") as place:
            (GOLDEN / f"{each}.sh").write_text(printed(Path(place).resolve(), each))

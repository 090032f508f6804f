"""What `-m` sends, and what it refuses to send: the real program, and a Slurm that records."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.run.points import load_sweep
from tests.conftest import Completed, FakeSlurm, Run

SENTENCE = re.compile(r"hpc: [A-Za-z`/].+\.\n")


def assert_refused(done: Completed, words: str, directory: Path) -> None:
    """One sentence, after sbatch's own if it spoke; exit code 78, and nothing written."""
    assert done.returncode == 78, done.stderr
    ours = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith("sbatch:"))
    assert SENTENCE.fullmatch(ours), done.stderr
    assert words in done.stderr
    assert not directory.exists()


def test_one_job_is_planned_for_8xa100(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    done = run_py("-m", "hardware=8xA100", "run_dir=out", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    (script,) = fake_slurm.scripts
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    assert options | {"output": ""} == {
        "comment": "out",
        "cpus-per-task": "16",
        "gres": "gpu:a100:8",
        "job-name": "gpt",
        "mem": "960G",
        "nodes": "1",
        "ntasks-per-node": "8",
        "open-mode": "append",
        "output": "",
        "requeue": "",
        "signal": "USR2@120",
        "time": "1440",
    }
    assert "srun --unbuffered" in script
    assert "--kill-on-bad-exit=1 --cpus-per-task=16" in script
    assert "Submitted job 100, 1 point on 8xA100" in done.stdout
    assert str(tmp_path / "out") in done.stdout


def test_a_sweep_is_one_array(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    done = run_py(
        "-m", "hardware=8xA100", "optimizer.lr=1e-3,3e-4", "seed=0,1,2", "run_dir=out", environ=fake_slurm.environ
    )
    assert done.returncode == 0, done.stderr
    (script,) = fake_slurm.scripts
    assert "#SBATCH --array=0-5%6\n" in script
    points = load_sweep(tmp_path / "out").points
    assert [(p.config["optimizer"]["lr"], p.config["seed"]) for p in points] == [
        (lr, seed) for lr in (1e-3, 3e-4) for seed in (0, 1, 2)
    ]
    assert [p.config["run_dir"] for p in points] == [str(tmp_path / "out" / str(n)) for n in range(6)]


def test_points_with_different_resources_become_one_array_each(run_py: Run, fake_slurm: FakeSlurm) -> None:
    done = run_py("-m", "hardware=8xA100,1xA100", "seed=0,1", "run_dir=out", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    eight, one = fake_slurm.scripts
    assert "--gres=gpu:a100:8" in eight
    assert "hpc_points=(0 1)" in eight
    assert "--gres=gpu:a100:1" in one
    assert "hpc_points=(2 3)" in one


def test_arrays_are_cut_to_what_the_controller_takes_and_share_the_throttle(run_py: Run, fake_slurm: FakeSlurm) -> None:
    fake_slurm.answer("scontrol", "MaxArraySize = 4\n")
    done = run_py(
        "-m", "hardware=cpu", "seed=range(0,10)", "run_dir=out",
        "cluster.max_parallel_points=6", "cluster.partition=cpu",
        environ=fake_slurm.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    arrays = [re.findall(r"^#SBATCH --array=(\S+)", script, re.MULTILINE) for script in fake_slurm.scripts]
    assert arrays == [["0-3%2"], ["0-3%2"], ["0-1%2"]]


@pytest.mark.parametrize("arguments", [["seed=3"], ["seed=0,1,2", "hardware=4x8xH100"]], ids=["single", "array"])
def test_the_printed_script_is_the_sent_script(
    run_py: Run, run_hpc: Run, fake_slurm: FakeSlurm, arguments: list[str]
) -> None:
    fake_slurm.answer("sinfo", "gpu*|2-00:00:00|8|128|2060000|gpu:a100:8,gpu:h100:8\n")
    asked = ["hardware=8xA100", "run_dir=a dir with 'quotes' and $dollars", *arguments]
    asked = [word if "run_dir" not in word else "run_dir=\"a dir with 'quotes' and $dollars\"" for word in asked]
    printed = run_hpc("script", *asked, environ=fake_slurm.environ)
    assert printed.returncode == 0, printed.stderr
    assert fake_slurm.scripts == []
    sent = run_py("-m", *asked, environ=fake_slurm.environ)
    assert sent.returncode == 0, sent.stderr
    assert fake_slurm.scripts == [printed.stdout]


def test_a_job_is_told_its_point_and_who_may_write_and_no_pickle(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    """What the script starts, run by a shell in which srun and hpc only repeat what they are told."""
    run_py("-m", "hardware=8xA100", "run_dir='a $dir'", "seed=range(3)", environ=fake_slurm.environ)
    (script,) = fake_slurm.scripts
    shell = script.replace(sys.executable, "echo", 1).replace("-u -m hpc.submit.payload", "TOLD", 1)
    assert shell != script
    srun = fake_slurm.directory / "bin" / "srun"
    srun.write_text('#!/bin/sh\nwhile [ "$1" != TOLD ]; do shift; done\nprintf "%s\\n" "$@"\n')
    environ = {**fake_slurm.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "9"}
    done = subprocess.run(["bash", "-c", shell], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["TOLD", str(tmp_path / "a $dir"), "2", "owner"]
    assert list(tmp_path.glob("a $dir/**/*.pkl")) == []


def test_the_environment_of_an_enclosing_job_does_not_leak(run_py: Run, fake_slurm: FakeSlurm) -> None:
    leaks = {"SLURM_JOB_ID": "7", "SLURM_CPU_BIND": "x", "SBATCH_PARTITION": "nowhere", "RANK": "0"}
    leaks |= {"FLUX_TASK_RANK": "1", "HQ_TASK_ID": "3", "PALS_RANKID": "0", "MPI_LOCALRANKID": "1", "PMI_FD": "9"}
    keeps = {"SLURM_CONF": "/etc/slurm/slurm.conf", "HOME": "/tmp"}
    run_py("-m", "hardware=8xA100", environ={**fake_slurm.environ, **leaks, **keeps})
    environment = (fake_slurm.directory / "environment").read_text().splitlines()
    names = {line.partition("=")[0] for line in environment}
    assert not names & leaks.keys()
    assert keeps.keys() <= names


def test_submitting_imports_no_torch(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "torch.py").write_text("raise RuntimeError('torch was imported')")
    path = f"{tmp_path / 'trap'}:{Path(__file__).parents[2]}"
    done = run_py("-m", "hardware=8xA100", environ={**fake_slurm.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hardware=9xA100"], "hardware must be one of 1xA100, 4x8xH100, 8xA100, 8xH100, 8xH200, adastra-8xMI250X,"),
        (["optimizer.learning_rate=1"], "optimizer.learning_rate is no setting: optimizer has lr, weight_decay"),
        (["harware=8xA100"], "harware is no setting: the config has hydra, hardware"),
        (["seed.first=1"], "Key 'first' is not in struct (at seed.first)"),
        (["hardware.nodes=two"], "hardware.nodes"),
        (["hardware.nodes=0"], "hardware.nodes must be at least 1, but is 0"),
        (["hardware.nodes=5"], "hardware=8xA100 must fit partition gpu, but asks for 5 node(s)"),
        (["hardware.time_limit_minutes=9999"], "must be at most 2880 on partition gpu, but is 9999"),
        (["hardware.memory_gb=2000"], "must fit partition gpu"),
        (["cluster.partition=nowhere"], "cluster.partition must be one of gpu, cpu, but is nowhere"),
        (["cluster.partition=cpu"], "must fit partition cpu"),
        (["strategy.precision=fp8"], "strategy.precision must be one of fp32, bf16, fp16, but is fp8"),
        (["hardware.tasks_per_node=16"], "hardware.tasks_per_node must be at most hardware.gpus_per_node (8)"),
        (["experiment.target=null"], "experiment.target"),
        (["seed=range(0,10,0)"], "seed=range(0,10,0) must have a step other than 0"),
        (["seed=range(3)", f"steps=range({10**30})"], "launch.max_points=100000 points, but has 3,000,000,000,000"),
        (["launch.ask_above_gpu_hours=500", "seed=1,2,3"], "launch.ask_above_gpu_hours must be at least 576"),
        (["seed=1,2,-1"], "Point 2 (seed=-1): seed must be at least 0, but is -1"),
        (["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=1", "seed=0,1"], "hydra/sweeper"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_written(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = run_py("-m", "hardware=8xA100", "run_dir=runs/out", *arguments, environ=fake_slurm.environ)
    assert_refused(done, words, tmp_path / "runs")
    assert fake_slurm.scripts == []


def test_a_script_can_be_printed_where_there_is_no_slurm(run_hpc: Run) -> None:
    environ = {"PATH": str(Path(sys.executable).parent)}
    done = run_hpc("script", "hardware=8xA100", "seed=0,1", "run_dir=out", environ=environ)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-1%2" in done.stdout


def test_a_local_sweep_has_no_script_to_print(run_hpc: Run, tmp_path: Path) -> None:
    assert_refused(run_hpc("script", "cluster=local", "run_dir=out"), "cluster must be slurm", tmp_path / "out")


def test_without_sbatch_the_sentence_says_what_to_do(run_py: Run, tmp_path: Path) -> None:
    environ = {"PATH": str(Path(sys.executable).parent)}
    done = run_py("-m", "hardware=8xA100", "run_dir=runs/out", environ=environ)
    assert_refused(done, "sbatch must be on PATH", tmp_path / "runs")


def test_the_words_of_sbatch_are_passed_on_and_nothing_stays(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    fake_slurm.refuse("sbatch: error: Batch job submission failed: Invalid account or account/partition combination\n")
    done = run_py("-m", "hardware=8xA100", "run_dir=runs/out", environ=fake_slurm.environ)
    assert_refused(done, "Invalid account or account/partition combination", tmp_path / "runs")


def test_a_sweep_that_is_refused_halfway_is_taken_back(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.refuse("sbatch: error: QOSMaxSubmitJobPerUserLimit\n", after=1)
    done = run_py("-m", "hardware=8xA100,1xA100", "run_dir=runs/out", environ=fake_slurm.environ)
    assert_refused(done, "QOSMaxSubmitJobPerUserLimit", tmp_path / "runs")
    assert "scancel 100" in fake_slurm.calls


def test_an_unwritable_run_directory_is_refused(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_py("-m", "hardware=8xA100", "run_dir=file/out", environ=fake_slurm.environ)
    assert_refused(done, "run_dir must be a writable directory", tmp_path / "file" / "out")
    assert fake_slurm.scripts == []


def test_a_directory_that_holds_another_sweep_is_refused(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    run_py("-m", "hardware=8xA100", "run_dir=out", environ=fake_slurm.environ)
    before = sorted(tmp_path.rglob("out/**/*"))
    done = run_py("-m", "hardware=8xA100", "run_dir=out", "seed=5", environ=fake_slurm.environ)
    assert done.returncode == 78
    assert "must be given the points that it holds, to add some, but point 0" in done.stderr
    assert len(fake_slurm.scripts) == 1
    assert sorted(tmp_path.rglob("out/**/*")) == before


@pytest.mark.parametrize("hardware", ["8xA100", "1xA100"])
def test_training_on_the_login_node_is_refused(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path, hardware: str
) -> None:
    done = run_py(f"hardware={hardware}", "run_dir=runs/out", environ=fake_slurm.environ)
    assert_refused(done, f"`python run.py -m hardware={hardware}`", tmp_path / "runs")


def test_what_slurm_does_not_take_now_is_kept_and_said(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.answer("scontrol", "MaxArraySize = 1001\nMaxJobCount = 4\n")
    fake_slurm.answer("squeue", "7_1\n")
    done = run_py("-m", "hardware=1xA100,8xA100", "seed=1,2", "run_dir=out", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    assert "hpc: 1 point not submitted now, because Slurm takes no more (MaxJobCount=4): `hpc resume" in done.stderr
    assert [re.findall(r"hpc_points=.*", script) for script in fake_slurm.scripts] == [
        ["hpc_points=(0 1)"],
        ["hpc_points=(2)"],
    ]
    assert len(load_sweep(tmp_path / "out").points) == 4
    fake_slurm.answer("squeue", "7_1\n7_2\n7_3\n7_4\n")
    full = run_py("-m", "hardware=1xA100", "run_dir=runs/out", environ=fake_slurm.environ)
    assert_refused(full, "MaxJobCount=4 is reached", tmp_path / "runs")


GIVES_UP = """#!/bin/sh
echo "sbatch $*" >>"$FAKE_SLURM/calls"
number=$(ls "$FAKE_SLURM/scripts" | wc -l)
queue() {
    echo "Good day from site job 7"
    cp "$1" "$FAKE_SLURM/scripts/$number.sh"
    echo "$number|$1" >>"$FAKE_SLURM/squeue.out"
}
once() { [ ! -e "$FAKE_SLURM/again" ] && touch "$FAKE_SLURM/again"; }
give_up() { echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1; }
"""


@pytest.mark.parametrize(
    ("behaviour", "sbatch_calls"),
    [
        ('queue "$1"; give_up', 1),
        ('once && give_up; queue "$1"; echo "Submitted batch job $number"', 2),
    ],
    ids=["it was queued", "it was not"],
)
def test_a_script_is_queued_once_although_sbatch_gives_up(
    run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path, behaviour: str, sbatch_calls: int
) -> None:
    (fake_slurm.directory / "bin" / "sbatch").write_text(f"{GIVES_UP}{behaviour}\n")
    done = run_py(*CPU, "run_dir=out", "seed=1,2", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    assert "Submitted job 0, 2 points" in done.stdout
    assert len(fake_slurm.scripts) == 1
    assert sum(call.startswith("sbatch") for call in fake_slurm.calls) == sbatch_calls
    assert [path.name for path in (tmp_path / "out/submitit").iterdir()] == ["0_submission.sh"]


CPU = ("-m", "hardware=cpu", "cluster.partition=cpu")


def test_what_a_login_shell_exports_reaches_sbatch_unless_the_plan_says_it(run_py: Run, fake_slurm: FakeSlurm) -> None:
    wishes = {"SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "gpu", "SBATCH_TIMELIMIT": "1"}
    done = run_py(*CPU, environ={**fake_slurm.environ, **wishes})
    assert done.returncode == 0, done.stderr
    lines = (fake_slurm.directory / "environment").read_text().splitlines()
    assert [line for line in lines if line.startswith("SBATCH_")] == ["SBATCH_ACCOUNT=lab"]


def test_a_refused_sweep_leaves_what_was_there_before(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "out/submitit").mkdir(parents=True)
    for name in ("notes", "submitit/old.pkl"):
        (tmp_path / "out" / name).write_text("mine")
    before = sorted(tmp_path.rglob("out/**/*"))
    fake_slurm.refuse("sbatch: error: QOSMaxSubmitJobPerUserLimit\n", after=1)
    refused = run_py("-m", "hardware=8xA100,1xA100", "run_dir=out", environ=fake_slurm.environ)
    assert refused.returncode == 78
    assert sorted(tmp_path.rglob("out/**/*")) == before
    (fake_slurm.directory / "refusal").unlink()
    done = run_py("-m", "hardware=8xA100", "run_dir=out", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr


def test_a_corrected_value_works_with_the_same_directory(run_py: Run, fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    assert run_py(*CPU, "run_dir=out", "seed=-1", environ=fake_slurm.environ).returncode == 78
    done = run_py(*CPU, "run_dir=out", "seed=1", environ=fake_slurm.environ)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/points.jsonl").exists()


def test_the_environment_of_a_site_is_set_as_it_was_written(run_hpc: Run, fake_slurm: FakeSlurm) -> None:
    odd = 'it\'s $HOME `x` \\ "q"'
    quoted = "'" + odd.replace("'", "\\'") + "'"
    done = run_hpc(
        "script", "hardware=cpu", f"+cluster.environment={{ODD:{quoted},PYTHONPATH:/site}}", "run_dir=out",
        environ=fake_slurm.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    exports = [line for line in done.stdout.splitlines() if line.startswith("export ")]
    shell = "\n".join([*exports, 'printf "%s\\n" "$ODD" "$PYTHONPATH" "$SLURM_EXPORT_ENV"'])
    told = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0] == odd
    assert told[1].startswith("/site:")
    assert told[2] == "ALL"

"""What does the configuration of a cluster mean for our promises? One function for each; sources: slurm.conf(5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hpc import errors
from hpc.doctor.finding import NOTE, OK, PROBLEM, Finding
from hpc.slurm.numbers import expanded
from hpc.slurm.survey import Survey

DEFAULT_CRED_EXPIRE_SECONDS = 120
TESTED, NEWEST_READ = (22, 5), (26, 5)
"""The release that the tests run, and the newest whose behaviour was read in its source."""
OURS = {
    errors.EXIT_CONTINUE: "saved, to be continued",
    errors.EXIT_HUNG: "a rank hung",
    errors.SaveError.exit_code: "could not save",
    errors.LoadError.exit_code: "nothing could be loaded",
    errors.ConfigurationError.exit_code: "a setting is wrong",
    errors.NoProgressError.exit_code: "no progress",
    errors.DivergedError.exit_code: "diverged",
    errors.DriftError.exit_code: "ranks differ",
    1: "the training function raised",
}
"""What our exit codes say."""


def version(survey: Survey) -> Iterator[Finding]:
    """What differs between releases, and that it is taken care of."""
    told, release = survey.text("SLURM_VERSION") or "unknown", survey.version
    facts = []
    if release < (23, 11):
        facts.append("srun is told --cpus-per-task again, because this release does not hand it on")
    if release >= (24, 5):
        facts.append(
            "a job that ends by itself while it is preempted is requeued, and a finished run then ends at once"
        )
    if release >= (25, 5):
        facts.append("a job whose environment cannot be fetched is held: `hpc status` says so")
    text = f"Slurm {told}" + (f": {'; '.join(facts)}" if facts else "")
    if TESTED <= release <= NEWEST_READ:
        yield Finding("version", OK, f"{text}.")
    else:
        yield Finding("version", NOTE, f"{text}. This release is not known to hpc.", "Run `hpc doctor --canary`.")


def requeue(survey: Survey) -> Iterator[Finding]:
    """JobRequeue; we always say --requeue."""
    if survey.text("JobRequeue") == "0":
        yield Finding("requeue", OK, "JobRequeue=0 ends jobs that lose their nodes, but ours are sent with --requeue.")
    else:
        yield Finding("requeue", OK, "Jobs may be requeued.")


def requeue_floor(survey: Survey) -> Iterator[Finding]:
    """AuthInfo cred_expire: how soon a requeued job may start."""
    told = survey.word("AuthInfo", "cred_expire") or ""
    seconds = int(told) if told.isdigit() else DEFAULT_CRED_EXPIRE_SECONDS
    wait = survey.number("KillWait", 30)
    text = f"A requeued job starts no sooner than {seconds + 1} s later (cred_expire={seconds})"
    if seconds < wait + 5:
        advice = f"Ask the administrators for cred_expire={wait + 5} or more; `scontrol release` frees such a job."
        text += f", which is too soon with KillWait={wait}: it may meet its own dying predecessor, and is then held"
        yield Finding("requeue_floor", PROBLEM, f"{text}.", advice)
    else:
        yield Finding("requeue_floor", OK, f"{text}.")


def requeue_exit(survey: Survey) -> Iterator[Finding]:
    """RequeueExit and RequeueExitHold with codes of ours: Slurm would then decide a second time."""
    clashes = [
        f"{name} has {code} ({OURS[code]})"
        for name in ("RequeueExit", "RequeueExitHold")
        for code in sorted({*expanded(survey.text(name))} & set(OURS))
    ]
    if clashes:
        advice = "Ask the administrators to take these codes out: a run would be started twice, or never end."
        yield Finding("requeue_exit", PROBLEM, f"Slurm acts on exit codes of ours: {', '.join(clashes)}.", advice)
    else:
        yield Finding("requeue_exit", OK, "Slurm leaves our exit codes to us.")


def user_signal(survey: Survey) -> Iterator[Finding]:
    """Whether a preempted job gets our signal or SIGTERM; both are understood."""
    old = survey.word("SlurmctldParameters", "preempt_send_user_signal") is not None
    sent = old or survey.word("PreemptParameters", "send_user_signal") is not None
    told = "the signal of --signal" if sent else "SIGTERM, and ask the controller why"
    yield Finding("user_signal", OK, f"Preempted ranks get {told}.")


def kill_wait(survey: Survey) -> Iterator[Finding]:
    """The time from SIGTERM to SIGKILL."""
    seconds = survey.number("KillWait", 30)
    if seconds < 10:
        advice = "Save often: checkpoint.every_minutes; and let cluster.grace_seconds be more than a step and a save."
        yield Finding("kill_wait", NOTE, f"Between SIGTERM and SIGKILL there are only {seconds} s (KillWait).", advice)
    else:
        yield Finding("kill_wait", OK, f"Between SIGTERM and SIGKILL there are {seconds} s (KillWait).")


def process_tracking(survey: Survey) -> Iterator[Finding]:
    """Whom signals reach, and whether anything can be left behind on a node."""
    kind = survey.text("ProctrackType").removeprefix("proctrack/")
    if kind == "cgroup":
        text = "Signals reach only the first process of each task, and that is Python (proctrack/cgroup)."
        yield Finding("process_tracking", OK, text)
    else:
        text = f"Signals reach DataLoader workers, too, which ignore them (proctrack/{kind or 'unknown'})."
        advice = "A daemon that your code starts with setsid outlives the job: end it yourself."
        yield Finding("process_tracking", NOTE, text, advice)


def over_time_limit(survey: Survey) -> Iterator[Finding]:
    """Whether jobs may run longer than they say. We stop at the limit that was asked for."""
    told = survey.text("OverTimeLimit")
    if told.startswith(("UNLIMITED", "INFINITE")) or survey.number("OverTimeLimit", 0):
        yield Finding("over_time_limit", OK, f"Jobs may run past their limits (OverTimeLimit={told}); ours do not.")
    else:
        yield Finding("over_time_limit", OK, "Jobs end at their time limits; ours stop and save before.")


def array_size(survey: Survey) -> Iterator[Finding]:
    """MaxArraySize: larger sweeps are several arrays."""
    size = survey.number("MaxArraySize", 1001)
    if size < 2:
        yield Finding("array_size", PROBLEM, "There are no job arrays (MaxArraySize).", "Submit points one by one.")
    else:
        yield Finding("array_size", OK, f"Arrays have indices below {size} (MaxArraySize): larger sweeps are cut.")


def job_count(survey: Survey) -> Iterator[Finding]:
    """MaxJobCount, of all users together; every task of an array counts."""
    count = survey.number("MaxJobCount", 10000)
    text = f"The queue holds {count:,} jobs of everybody (MaxJobCount)"
    if count < 1000:
        advice = "What does not fit is kept: `hpc resume` submits it when there is room."
        yield Finding("job_count", NOTE, f"{text}, and every point of a sweep is one.", advice)
    else:
        yield Finding("job_count", OK, f"{text}; what does not fit is kept for `hpc resume`.")


def accounting(survey: Survey) -> Iterator[Finding]:
    """Only the energy in reports needs it; where it is enforced, sbatch wants an account."""
    enforced = survey.text("AccountingStorageEnforce")
    if enforced:
        advice = "Set cluster.account in the preset of this cluster, unless you have a default one."
        text = f"Accounts are enforced ({enforced}): a job without a valid one is refused."
        yield Finding("accounting", NOTE, text, advice)
    elif not survey.text("AccountingStorageType").endswith("slurmdbd"):
        yield Finding("accounting", OK, "There is no sacct here; only the energy in `hpc report` needs it.")


def dead_node(survey: Survey) -> Iterator[Finding]:
    """How long it takes until a dead node is noticed."""
    seconds = survey.number("SlurmdTimeout", 300)
    text = f"A node that dies is noticed after {seconds} s (SlurmdTimeout); its run is fenced, and goes on elsewhere."
    yield Finding("dead_node", OK, text)


def submit_plugins(survey: Survey) -> Iterator[Finding]:
    """Plugins that change or refuse jobs by rules of the site."""
    plugins = survey.text("JobSubmitPlugins")
    if plugins:
        advice = "Compare `scontrol show job` with `hpc script` once."
        yield Finding("submit_plugins", NOTE, f"The site may change jobs when they arrive ({plugins}).", advice)
    if survey.word("SlurmctldParameters", "rl_enable") is not None:
        text = "The controller limits how often it is asked (rl_enable): commands may take longer, and come through."
        yield Finding("submit_plugins", OK, text)


CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    *(version, requeue, requeue_floor, requeue_exit, user_signal, kill_wait, process_tracking, over_time_limit),
    *(array_size, job_count, accounting, dead_node, submit_plugins),
)

"""Sends the plans of a sweep to sbatch, all of them or none, and each of them once."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from hpc.environ import process_environ
from hpc.errors import SlurmError, SubmissionError
from hpc.failpoints import failpoint
from hpc.run.calls import Call, alone, next_number, open_calls, record_answer, record_call, record_void
from hpc.run.directory import not_writable
from hpc.run.point import Point
from hpc.run.points import Sweep
from hpc.run.submissions import Submission, newest_attempts
from hpc.say import each, say, warn
from hpc.slurm import client
from hpc.slurm.limits import Room, own_name, room
from hpc.submit.answer import is_unsure
from hpc.submit.container import check_container
from hpc.submit.cost import agree_to_cost
from hpc.submit.environment import scrubbed_process
from hpc.submit.fit import check_fits
from hpc.submit.plan import Plan, asked_clusters, make_plans
from hpc.submit.script import options, script, send_script
from hpc.submit.settle import queued_as, settle
from hpc.submit.site import check_site, most_jobs
from hpc.submit.undo import Made, directory_of

WAITS_SECONDS = (1, 5, 15, 30)
"""Before each look at the queue: a controller that did not answer is busy."""


class UnansweredError(SubmissionError):
    """Nobody knows whether Slurm has the job."""


def show(plans: Sequence[Plan]) -> None:
    """Print what `send` would send, byte for byte."""
    sys.stdout.write("\n".join(map(script, plans)))


def plans_for_slurm(sweep: Sweep, scheduler_of: Callable[[Point], str]) -> list[Plan]:
    """The plans of those points that go to Slurm, in arrays that its controller takes, and as many as it takes now.

    Raises:
        SubmissionError: It takes none.
    """
    environ = process_environ()
    groups = make_plans(sweep, max(1, len(sweep.points)), scheduler_of)
    for group in groups:
        check_site(group, environ)
    places = {_place(plan, environ) for plan in groups}
    rooms = [room(own_name(), *place) for place in places]
    size = min((each.max_array_size for each in rooms), default=1)
    plans = make_plans(sweep, size, scheduler_of)
    least = min((each for each in rooms if each.jobs is not None), key=lambda each: each.jobs or 0, default=None)
    plans = plans if least is None else _within(least, plans, sweep.directory)
    first = next_number(sweep.directory)
    return [replace(plan, number=first + number) for number, plan in enumerate(plans)]


def _place(plan: Plan, environ: Mapping[str, str]) -> tuple[str | None, str | None, int | None]:
    """What the room for its jobs depends on; see `room`."""
    return plan.cluster.qos or environ.get("SBATCH_QOS"), asked_clusters(plan, environ), most_jobs(plan.cluster)


def _within(least: Room, plans: list[Plan], directory: Path) -> list[Plan]:
    """Those that there is room for, the last of them with fewer points; the others stay unsubmitted."""
    left, kept = least.jobs or 0, sum(len(plan.points) for plan in plans)
    sent: list[Plan] = []
    for plan in plans:
        sent += [replace(plan, points=plan.points[: left * plan.per_job])] if left else []
        left -= min(left, plan.jobs)
    kept -= sum(len(plan.points) for plan in sent)
    if plans and not sent:
        raise SubmissionError(f"Slurm must take another job, but {least.limit} is reached: wait for some to end.")
    if kept:
        warn(
            f"{kept} point{'s' * (kept > 1)} not submitted now, because Slurm takes no more ({least.limit}): "
            f"`hpc resume {shlex.quote(str(directory))}` does it when there is room."
        )
    return sent


def send(sweep: Sweep, scheduler_of: Callable[[Point], str]) -> None:
    """One sbatch call for each plan.

    Args:
        sweep: Points that were checked.
        scheduler_of: Whether a point goes to slurm; the others are frozen, and not sent.

    Raises:
        SubmissionError: sbatch refused a plan, or a plan cannot start; nothing is left of the sweep. Where nobody knows
            what Slurm has, all is left, and the next command looks it up.
    """
    plans = agreed_plans(sweep, scheduler_of)
    sent: list[tuple[Plan, str]] = []
    with directory_of(sweep) as above, alone(sweep.directory):
        made = Made(sweep, plans[0].log_directory, above)
        failpoint("frozen", 0)
        try:
            send_each(plans, sent)
        except UnansweredError:
            raise
        except BaseException:  # Ctrl-C, too: all of a sweep is submitted, or nothing of it
            _undo(sent, made)
            raise
    announce(sweep, sent)


def agreed_plans(sweep: Sweep, scheduler_of: Callable[[Point], str]) -> list[Plan]:
    """The plans of those points that go to Slurm, all of which can start, at a cost that a person agrees to.

    Raises:
        SubmissionError: A plan cannot start, or Slurm takes none.
        ConfigurationError: Nobody has said yes to the cost.
    """
    plans = plans_for_slurm(sweep, scheduler_of)
    for plan in plans:
        check_container(plan)
        check_fits(plan, process_environ())
    agree_to_cost(plans, sweep.points[0].settings.launch)
    return plans


def send_each(plans: Sequence[Plan], sent: list[tuple[Plan, str]]) -> None:
    """One sbatch call for each plan; `sent` gets the plan and its job, also of those before one that was refused.

    Raises:
        SubmissionError: sbatch refused a plan.
        ConfigurationError: Its files cannot be written.
    """
    for plan in each(plans, f"Submitting {len(plans)} arrays"):
        number = max(plan.number, next_number(plan.sweep_directory))  # one before may have been called twice
        sent.append((plan, sbatch(replace(plan, number=number))))


def sbatch(plan: Plan) -> str:
    """One array, or one job for one point; returns the id that squeue shows, which is noted by then.

    Raises:
        UnansweredError: The controller does not say whether it has the job.
        SubmissionError: sbatch refused it.
        ConfigurationError: Its files cannot be written.
    """
    waits = iter(WAITS_SECONDS)
    while True:
        try:
            return _called(plan)
        except FailedJobError as error:
            if not is_unsure(str(error)):
                raise SubmissionError(_sbatch_words(error)) from error
            job = _looked_up(plan, waits, str(error))
        except FailedSubmissionError as error:
            raise SubmissionError(_sbatch_words(error)) from error
        except OSError as error:
            raise not_writable(plan.sweep_directory, error) from error
        if job is not None:
            return job
        plan = replace(plan, number=next_number(plan.sweep_directory))


def _called(plan: Plan) -> str:
    """One call, noted before and after."""
    directory, points = plan.sweep_directory, plan.points
    submission = Submission(
        "", points, round(time.time(), 3), clusters=asked_clusters(plan, process_environ()),
        is_array=plan.jobs > 1, after=newest_attempts(directory, points),
        per_job=plan.per_job,
    )  # fmt: skip
    calls: list[Call] = []

    def begins(script_file: Path) -> None:
        calls.append(Call(plan.number, script_file.name, submission))
        try:
            record_call(directory, calls[0])
        except OSError:
            script_file.unlink(missing_ok=True)
            raise
        failpoint("called", 0)

    try:
        with scrubbed_process(options(plan)):
            job = send_script(plan, begins)
    except FailedJobError as error:
        if calls and not is_unsure(str(error)):
            record_void(directory, calls[0])
        raise
    failpoint("queued", 0)
    record_answer(directory, calls[0], replace(submission, job=job))
    failpoint("noted", 0)
    return job


def _looked_up(plan: Plan, waits: Iterator[int], reason: str) -> str | None:
    """The job of a call that sbatch knows nothing about; None where there is none, and never will be."""
    for seconds in waits:
        time.sleep(seconds)
        try:
            found = {call.number: job for call, job in settle(plan.sweep_directory)}
            return found[plan.number]
        except SlurmError as error:
            reason = str(error)
    shown = shlex.quote(str(plan.sweep_directory))
    raise UnansweredError(
        f"Slurm must say whether it has the job, but does not answer ({' '.join(reason.split())}): "
        f"`hpc resume {shown}` finds out when it does, and submits what is missing."
    )


def _sbatch_words(error: Exception) -> str:
    """What sbatch itself said, on one line; submitit has passed it on as it came already."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch:")] or lines[-1:]
    return f"sbatch refused the job, and nothing was submitted: {' '.join(said).rstrip('.')}."


def _undo(sent: list[tuple[Plan, str]], made: Made) -> None:
    """Take back what this command has made; what lay in its directories before stays.

    Raises:
        SlurmError: A job could not be cancelled, or may be there: then all stays, for the next command to look at.
    """
    directory, jobs = made.directory, {job_id: asked_clusters(plan, process_environ()) for plan, job_id in sent}
    for call in open_calls(directory):  # sbatch was interrupted, or what it said could not be noted
        job = queued_as(call)
        jobs |= {job: call.submission.clusters} if job is not None else {}
    for job_id, clusters in jobs.items():
        client.cancel(job_id, clusters)
    made.take_back(list(jobs))


def announce(sweep: Sweep, sent: Sequence[tuple[Plan, str]]) -> None:
    """Say what was submitted, and how to follow it."""
    for plan, job_id in sent:
        count = len(plan.points)
        shape = f"{plan.hardware.name}: {plan.hardware.nodes} node(s) × {plan.hardware.tasks_per_node or 1} task(s)"
        say(f"Submitted job {job_id}, {count} point{'s' * (count > 1)} on {shape}.")
    say(f"Directory: {sweep.directory}")
    say(f"Follow:    hpc status {shlex.quote(str(sweep.directory))}")
    say(f"           hpc logs -f {shlex.quote(str(sweep.directory))} {sent[0][0].points[0]}")

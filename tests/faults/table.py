"""Every fault that a run may meet, and the tests that inject it.

A row says what is not injected, and why. `test_table` holds the names to what is there, and the numbers to 1 to 68.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One row.

    Args:
        number: 1 to 68.
        what: Happens.
        tests: Who injects it, as file::function below tests/.
        missing: What of it is not injected, and why; "" where all is.
    """

    number: int
    what: str
    tests: tuple[str, ...] = ()
    missing: str = ""


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


LIGHT, HERE, LIFE = "slurm/test_first_light.py", "faults/test_faults.py", "task/test_life.py"
KILLS, STORE, FULL = "checkpoint/test_kills.py", "checkpoint/test_store.py", "checkpoint/test_full_disk.py"
REQUESTS, SAVING, VERBS = "stop/test_requests.py", "checkpoint/test_saving.py", "cli/test_sweep_verbs.py"
HANDOVER, HANGS, METRICS, SUBMISSION = (
    "slurm/test_handover.py",
    "slurm/test_hangs.py",
    "tracking/test_metrics.py",
    "submit/test_submission.py",
)
TWICE = "a_run_preempted_twice_is_bitwise_the_uninterrupted_one"
GIVEN_UP = "the_ranks_of_a_node_that_was_given_up_commit_nothing_and_leave"
FINAL = "a_cancellation_in_the_grace_time_of_a_preemption_is_final"
OTHERWISE = "a_preemption_where_slurm_is_configured_otherwise"
SEVERAL = "a_restarted_slurmd_a_drained_node_and_a_suspended_job_stop_nobody"

FAULTS = (
    Fault(1, "preempted, grace 20", _in(LIGHT, TWICE)),
    Fault(2, "preempted, told by the signal of --signal", _in(HERE, OTHERWISE)),
    Fault(3, "preempted, grace 0", _in(LIGHT, TWICE) + _in(HERE, "a_preemption_before_the_first_checkpoint")),
    Fault(4, "preempted by being cancelled", _in(HANDOVER, "a_job_that_is_preempted_by_being_cancelled_goes_on")),
    Fault(5, "preempted, no requeue", _in(HANDOVER, "a_job_without_requeue_goes_on_in_one_that_follows_it", "a_job_that_is_preempted_by_being_cancelled_goes_on")),
    Fault(6, "exit within the grace time", _in(LIGHT, TWICE)),
    Fault(7, "time limit, told before", _in(LIGHT, "a_run_that_meets_its_time_limit_goes_on_in_another_life")),
    Fault(8, "time limit, told by the own clock", _in("attempt/test_by_hand.py", "a_script_is_stopped_before_its_allocation_ends") + _in(REQUESTS, "the_clock_counts_as_a_request")),
    Fault(9, "told to stop before torch is imported", _in(HERE, "a_preemption_before_the_first_checkpoint")),
    Fault(10, "a signal in a long phase", _in(HERE, "a_preemption_before_the_first_checkpoint"), "phases other than the start-up: each needs a model that takes long there"),
    Fault(11, "storms of signals", _in(HERE, "a_storm_of_signals_is_one_stop") + _in(REQUESTS, "a_hundred_signals_are_one_request")),
    Fault(12, "a signal in backward or in a collective", _in(REQUESTS, "a_signal_is_seen_while_the_main_thread_is_busy_in_c"), "from a hook of autograd"),
    Fault(13, "a signal to one rank", _in(HERE, "a_signal_to_one_rank_stops_all_at_one_step_and_a_restarted_controller_stops_nobody") + _in(LIFE, "a_signal_to_one_rank_stops_all_and_the_run_goes_on_as_if_never_interrupted")),
    Fault(14, "ranks of different speed", _in(LIFE, "a_signal_to_one_rank_stops_all_and_the_run_goes_on_as_if_never_interrupted"), "a delay that puts one rank a step ahead"),
    Fault(15, "a shell between srun and the rank", _in("slurm/test_by_hand.py", "a_shell_or_a_pipe_around_the_ranks_ends_nothing_for_good") + _in("stop/test_shell.py", "a_shell_that_dies_of_the_signal_is_named")),
    Fault(16, "signals reach workers of a DataLoader", _in(LIFE, "data_loader_workers_outlive_the_signal_that_stops_their_rank")),
    Fault(17, "torchrun in between", _in("slurm/test_rendezvous.py", "torchrun_on_two_nodes_trains_although_the_master_calls_itself_loopback"), "a signal through torchrun, which does not pass it on"),
    Fault(18, "cancelled", _in(LIGHT, "a_cancelled_job_stays_cancelled")),
    Fault(19, "cancelled in the grace time", _in(HERE, FINAL), "fifty times, for want of time: once"),
    Fault(20, "scancel -s, -b, -f", _in(LIFE, "a_signal_to_the_command_has_all_ranks_save"), "scancel's options; the signals themselves are sent"),
    Fault(21, "one task of an array preempted", _in(LIGHT, "only_the_preempted_task_of_an_array_is_requeued")),
    Fault(22, "the task whose id is the array's", _in(LIGHT, "only_the_preempted_task_of_an_array_is_requeued")),
    Fault(23, "requeued twice", _in(LIGHT, TWICE), "two that ask at one moment: only the batch script does, and it looks first whether Slurm has"),
    Fault(24, "controller away at the requeue", _in(HANDOVER, "a_controller_that_is_away_when_a_run_hands_over_is_waited_for")),
    Fault(25, "controller killed and restarted", _in(HERE, "a_signal_to_one_rank_stops_all_at_one_step_and_a_restarted_controller_stops_nobody")),
    Fault(26, "accounting stopped", _in(HERE, SEVERAL) + _in(VERBS, "jobs_that_the_controller_has_forgotten_are_gone")),
    Fault(27, "a rank killed", _in(HANDOVER, "a_killed_rank_costs_its_point_some_steps_and_nobody_an_errand") + _in(LIFE, "a_killed_rank_ends_the_job_with_its_signal")),
    Fault(28, "a rank killed in a save", _in(KILLS, "a_save_killed_anywhere_leaves_the_previous_or_the_new_checkpoint")),
    Fault(29, "ranks killed at random", _in(KILLS, "sharded_training_that_is_killed_in_a_save_ends_as_if_it_never_had_been"), "a hundred times"),
    Fault(30, "a rank that hangs", _in(HANGS, "a_stopped_rank_ends_the_attempt_and_the_next_one_goes_on")),
    Fault(31, "a slow rank", _in("task/test_hangs.py", "a_rank_that_is_slow_is_told_of_and_holds_nobody_up_for_good") + _in("stop/test_slow.py", "it_is_told_after_three_looks_and_again_when_the_factor_has_changed_much")),
    Fault(32, "slurmd killed, ranks alive", _in(HERE, GIVEN_UP) + _in(STORE, "an_older_life_cannot_commit")),
    Fault(33, "node set down", _in(HERE, "a_node_that_an_administrator_sets_down")),
    Fault(34, "network cut", _in(HERE, "a_network_that_is_cut_for_ten_seconds", GIVEN_UP)),
    Fault(35, "slurmd restarted", _in(HERE, SEVERAL)),
    Fault(36, "node drained", _in(HERE, SEVERAL)),
    Fault(37, "disk full", _in(FULL, "a_full_tmpfs", "a_full_ext4") + _in(HERE, "a_disk_that_is_full_when_a_run_saves_and_free_when_it_is_sent_again")),
    Fault(38, "no inodes", _in(FULL, "no_inodes")),
    Fault(39, "quota, EIO, slow disk", _in(FULL, "what_cannot_be_mounted_here_is_explained_too") + _in(SAVING, "a_slow_disk_delays_the_next_save_and_says_so"), "a quota and a device that fails: the errors are raised in Python, and so is the delay"),
    Fault(40, "read-only file system", _in(FULL, "a_read_only_file_system")),
    Fault(41, "directory vanished", _in(FULL, "a_directory_that_has_vanished_is_not_made_again")),
    Fault(42, "truncated, empty, missing, stray files", _in(STORE, "a_damaged_checkpoint_is_named_and_the_one_before_is_loaded")),
    Fault(43, "flipped bits", _in(STORE, "a_damaged_checkpoint_is_named_and_the_one_before_is_loaded", "every_flipped_bit_of_a_manifest_is_seen")),
    Fault(44, "stale pointer", _in(STORE, "a_directory_without_a_manifest_is_invisible"), "there is no pointer that could be stale"),
    Fault(45, "all checkpoints damaged", _in(LIFE, "when_every_checkpoint_is_damaged_nothing_starts_from_scratch")),
    Fault(46, "leftovers of the same step", _in(STORE, "leftovers_of_a_killed_save_do_not_block_the_next")),
    Fault(47, "stale directory listing", missing="needs an NFS server and a client with a cache, and the kernel here has neither"),
    Fault(48, "clocks that differ", _in("run/test_lives.py", "a_failure_by_a_clock_that_is_behind_belongs_to_its_attempt"), "a node whose clock jumps: all nodes share one"),
    Fault(49, "out of memory in a cgroup", _in("slurm/test_cgroups.py", "a_rank_that_takes_more_memory_than_the_job_has_is_named_and_not_tried_again")),
    Fault(50, "not a number", _in(METRICS, "all_ranks_stop_with_the_code_that_means_diverged")),
    Fault(51, "exception of the program", _in(LIGHT, "a_failing_rank_fails_the_job_and_is_named_first")),
    Fault(52, "crashes before the first checkpoint", _in(LIFE, "lives_without_progress_end_the_job") + _in(HANDOVER, "a_run_that_crashes_without_a_new_checkpoint_ends_and_says_so")),
    Fault(53, "crashes with progress", _in("run/test_lives.py", "a_commit_forgives_earlier_lives")),
    Fault(54, "preempted before the first checkpoint", _in(HERE, "a_preemption_before_the_first_checkpoint")),
    Fault(55, "preempted many times", _in(HERE, "six_preemptions_in_a_row"), "twenty times, for want of time: six"),
    Fault(56, "requeued when it has finished", _in(HERE, "a_run_that_has_finished_is_requeued_and_ends_at_once") + _in(LIFE, "a_finished_run_says_so_and_does_nothing")),
    Fault(57, "RequeueExit with our codes", (*_in(HERE, OTHERWISE, FINAL), "doctor/test_cluster.py::test_a_setting_is_told_with_what_it_means")),
    Fault(58, "suspended and resumed", _in(HERE, SEVERAL) + _in(HANGS, "a_job_that_is_suspended_and_resumed_does_not_hang")),
    Fault(59, "more points than the controller takes", _in(SUBMISSION, "arrays_are_cut_to_what_the_controller_takes_and_share_the_throttle")),
    Fault(60, "submission killed", _in("slurm/test_submit_again.py", "whenever_a_command_is_killed_the_next_one_submits_each_point_once")),
    Fault(61, "sbatch that warns or is slow", _in(SUBMISSION, "a_script_is_queued_once_although_sbatch_gives_up")),
    Fault(62, "a daemon that the program left", _in("slurm/test_cgroups.py", "what_a_program_leaves_behind_ends_with_its_job_and_costs_no_node"), "under linuxproc, which cannot see who left its session"),
    Fault(63, "two jobs on one node", _in("slurm/test_rendezvous.py", "array_neighbours_on_the_same_nodes_meet_apart")),
    Fault(64, "successors of a finished run", _in(HANDOVER, "a_job_without_requeue_goes_on_in_one_that_follows_it")),
    Fault(65, "another number of ranks", _in("data/test_worlds.py", "a_run_goes_on_with_another_number_of_ranks_as_if_nothing_happened")),
    Fault(66, "a save slower than the warning", _in(SAVING, "when_the_time_that_is_left_is_shorter_than_a_save_the_one_before_must_do", "a_slow_disk_delays_the_next_save_and_says_so")),
    Fault(67, "only the disk of logs is full", _in("slurm/test_by_hand.py", "a_full_disk_of_logs_stops_no_run"), "a rank's own log on a disk of its own"),
    Fault(68, "locale and variables of Slurm's commands", _in(HERE, "a_users_locale_and_variables_change_nothing") + _in(SUBMISSION, "the_environment_of_an_enclosing_job_does_not_leak")),
)  # fmt: skip

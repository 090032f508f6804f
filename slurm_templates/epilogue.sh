# Turns the step's exit code into what happens next. 75 means: stopped after a committed save, to be continued.
hpc_code=$?

# The newest failure record of this life of the job, whichever of its steps wrote it (hpc/attempt/identity.py).
if [ "$hpc_code" -ne 0 ]; then
    hpc_life=${SLURM_CLUSTER_NAME:-slurm}.$SLURM_JOB_ID-$hpc_restarts
    hpc_failure=$(ls -t "$hpc_sweep/$hpc_point/failures/$hpc_life."*.txt 2>/dev/null | head -n 1)
    if [ -n "$hpc_failure" ]; then
        cat "$hpc_failure" >&2
    fi
fi

# One field of the controller's record of this job.
hpc_field() {
    tr ' ' '\n' <<<"$hpc_record" | sed -n "s/^$1=//p" | head -n 1
}

# The controller may be restarting, or between two states with nothing to say: ask again for a while.
hpc_ask() {
    for hpc_try in 1 2 3 4 5; do
        hpc_record=$(scontrol show job "$hpc_job" --oneliner 2>&1)
        [ -n "$(hpc_field JobState)" ] && return
        sleep 1
    done
}

# Prints what becomes of the job. A job that is ending, was not restarted and is not at its time limit
# was cancelled by its owner: it stays cancelled.
hpc_hand_over() {
    hpc_ask
    case "$(hpc_field JobState) $(hpc_field Restarts) $(hpc_field Reason)" in
    "RUNNING $hpc_restarts "* | "COMPLETING $hpc_restarts TimeLimit")
        if hpc_refusal=$(scontrol requeue "$hpc_job" 2>&1); then
            echo "requeued"
        else
            echo "not requeued: $hpc_refusal"
        fi
        ;;
    " "*) echo "not requeued: the controller does not answer: $hpc_record" ;;
    *" $hpc_restarts "*) echo "not requeued: it is $(hpc_field JobState)" ;;
    *) echo "requeued by Slurm already" ;;
    esac
}

if [ "$hpc_code" -eq 75 ]; then
    echo "hpc: job $hpc_job saved its state: $(hpc_hand_over)." >&2
fi
exit "$hpc_code"

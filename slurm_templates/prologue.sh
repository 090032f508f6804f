# The batch shell outlives the signals that its step answers: it is the one that asks for the requeue.
trap : TERM USR2
export SLURM_EXPORT_ENV=ALL # sites that submit with --export=NONE mean the login shell, not what was set up above
hpc_restarts=${SLURM_RESTART_COUNT:-0}
hpc_job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
hpc_job=${hpc_job:-$SLURM_JOB_ID} # an array task is requeued as ARRAY_TASK: its plain id may name the whole array
if [ "$hpc_restarts" -gt 0 ]; then # all lives share one output, and whoever reads it must tell them apart
    echo "hpc: job $hpc_job begins again, restart $hpc_restarts." >&2
fi
hpc_point=${hpc_points[${SLURM_ARRAY_TASK_ID:-0}]}
export SUBMITIT_LOG_LEVEL=${SUBMITIT_LOG_LEVEL:-WARNING} # its INFO lines tell of its own files only
hpc_log=$(readlink /proc/$$/fd/2) # where srun says which node lost a rank, from here on
hpc_log_start=$(stat -c %s "$hpc_log" 2>/dev/null)
hpc_calls=
[ -r "$hpc_sweep/submissions.jsonl" ] && hpc_calls=$(<"$hpc_sweep/submissions.jsonl")
if [[ $hpc_calls == *"{\"event\": \"void\", \"number\": ${hpc_call:-none}}"* ]]; then
    echo "hpc: job $hpc_job must leave, because the call of sbatch that made it was given up (hpc/run/calls.py)." >&2
    exit 78
fi
if grep '^{"event": "cancelled"' <<<"$hpc_calls" | grep -qF "\"$hpc_job\""; then # while the life before asked for this one
    echo "hpc: job $hpc_job was cancelled by \`hpc cancel\` and does not begin again; \`hpc resume $hpc_sweep\` goes on." >&2
    exit 130
fi

# Several points in one job, side by side: each is a step of its own, with its own ranks, log, signals and end
# (hpc/submit/pack.py). Lane 2 of job 105_1 is `105_1.2`, in logs and in what `hpc cancel` has noted.
hpc_lanes=("${hpc_points[@]:${SLURM_ARRAY_TASK_ID:-0}*hpc_per_job:hpc_per_job}")
hpc_codes=() hpc_steps=() hpc_starts=()

# Whether somebody has cancelled a lane, or its point was submitted again by itself: it has nothing to do here any more.
hpc_is_left_out() {
    local newest
    [ -r "$hpc_sweep/submissions.jsonl" ] || return
    if grep -F '"event": "cancelled"' "$hpc_sweep/submissions.jsonl" | grep -qF "\"$hpc_job.$1\""; then
        return 0
    fi
    newest=$(grep -E "\"points\": \[[^]]*\"${hpc_lanes[$1]}\"" "$hpc_sweep/submissions.jsonl" |
        sed -n 's/.*"event": "submitted".*"job": "\([0-9]*\)".*/\1/p' | tail -n 1)
    [ "${newest:-0}" -gt "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}" ]
}

# The exit code of a lane that has come to its end in an earlier life of this job; nothing where it has not.
hpc_ended_before() {
    local directory=$hpc_sweep/${hpc_lanes[$1]} last
    [ -e "$directory/finished.json" ] && echo 0 && return
    last=$(tail -n 1 "$directory/journal/ended.jsonl" 2>/dev/null)
    [[ $last == *"\"attempt\": \"${SLURM_CLUSTER_NAME:-slurm}.$SLURM_JOB_ID-"*'"follows": "nothing"'* ]] || return
    sed 's/.*"code": \([0-9]*\).*/\1/' <<<"$last"
}

hpc_lane_log() {
    echo "$hpc_sweep/submitit/$hpc_job.$1_0_log.out"
}

# A signal ends `wait` early: it is asked again, for as long as the step is there.
hpc_wait_for() {
    local code again
    wait "$1"
    code=$?
    while [ $code -gt 128 ] && kill -0 "$1" 2>/dev/null; do
        wait "$1"
        code=$?
    done
    wait "$1" 2>/dev/null
    again=$?
    [ $again -eq 127 ] || code=$again
    return $code
}

hpc_run_lanes() {
    local lane
    for lane in "${!hpc_lanes[@]}"; do
        hpc_codes[lane]=$(hpc_ended_before "$lane")
        hpc_starts[lane]=$(stat -c %s "$(hpc_lane_log "$lane")" 2>/dev/null)
        if [ -z "${hpc_codes[lane]}" ] && ! hpc_is_left_out "$lane"; then
            hpc_point=${hpc_lanes[lane]}
            if [ "$hpc_restarts" -gt 0 ]; then
                echo "hpc: job $hpc_job begins again, restart $hpc_restarts." >>"$(hpc_lane_log "$lane")"
            fi
            hpc_start_lane "$lane" 2>>"$(hpc_lane_log "$lane")" &
            hpc_steps[lane]=$!
        fi
    done
    for lane in "${!hpc_steps[@]}"; do
        hpc_wait_for "${hpc_steps[lane]}"
        hpc_codes[lane]=$?
    done
}

# Every lane's end is judged by itself. What wants to go on does so in the next life of the whole job, which is asked for
# once all of them are judged.
hpc_conclude_lanes() {
    local lane code worst=0 goes_on= wishes
    wishes=$(mktemp)
    for lane in "${!hpc_lanes[@]}"; do
        code=${hpc_codes[lane]:-0}
        if [ -n "${hpc_steps[lane]}" ] && ! hpc_is_left_out "$lane"; then
            hpc_point=${hpc_lanes[lane]} hpc_log=$(hpc_lane_log "$lane") hpc_log_start=${hpc_starts[lane]}
            (exit "$code")
            hpc_epilogue "$wishes"
            code=$?
        elif [ -n "${hpc_steps[lane]}" ]; then
            code=0 # it was cancelled, and is nothing to wait or to fail for
        fi
        if [ "$code" -eq 75 ]; then
            goes_on=75
        elif [ "$code" -gt "$worst" ]; then
            worst=$code
        fi
    done
    if [ -s "$wishes" ]; then
        rm -f "$wishes"
        for wait in 1 2 4 8 16 32; do
            if hpc_refusal=$(command scontrol requeue "$hpc_job" 2>&1) || [[ $hpc_refusal == *"pending execution"* ]]; then
                exit 75
            fi
            sleep $wait
        done
        echo "hpc: job $hpc_job is not requeued ($hpc_refusal): \`hpc resume $hpc_sweep\` goes on from here." >&2
        exit 75
    fi
    rm -f "$wishes"
    exit "${goes_on:-$worst}"
}

# Inside of the epilogue of a lane: a requeue is wished for.
hpc_wish() {
    if [ "$1" = requeue ]; then
        echo "$2" >>"$hpc_wishes"
    else
        command scontrol "$@"
    fi
}

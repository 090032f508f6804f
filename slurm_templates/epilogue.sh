# Turns the step's exit code into what happens next: nothing, a requeue, or a job that follows this one.
hpc_code=$?
trap '' TERM USR2 # also for what is started here: a requeue is followed by SIGTERM at once
hpc_directory=$hpc_sweep/$hpc_point
hpc_life=${SLURM_CLUSTER_NAME:-slurm}.$SLURM_JOB_ID-$hpc_restarts # hpc/attempt/identity.py

# One field of the controller's record of this job.
hpc_field() {
    tr ' ' '\n' <<<"$hpc_record" | sed -n "s/^$1=//p" | head -n 1
}

# Whether a command of Slurm has failed because nobody answered (hpc/submit/answer.py).
hpc_is_away() {
    grep -Eqi 'timed? ?out|unable to contact|connection|communication|zero bytes|send/recv' <<<"$1"
}

# Asks until the controller answers. It may be restarting, or between two states with nothing to say.
hpc_ask() {
    local wait=1
    until hpc_record=$(SLURM_TIME_FORMAT=standard scontrol show job "$hpc_job" --oneliner 2>&1) && [ -n "$(hpc_field JobState)" ]; do
        if [ "$SECONDS" -ge "$hpc_deadline" ] || ! { hpc_is_away "$hpc_record" || [ $wait -lt 16 ]; }; then
            return
        fi
        sleep $wait
        wait=$((wait < 16 ? wait * 2 : 16))
    done
}

# What the first rank to fail has told the journal in this life, and not an echo of that, where there is anything else.
hpc_failed() {
    cat "$hpc_directory/journal/$hpc_life."*.jsonl 2>/dev/null | awk '
        /^{"event": "failed"/ && (!told || /"is_echo": false/ && echo) { told = $0; echo = /"is_echo": true/ }
        END { if (told) print told }'
}

# The exit code by what the last step of this life has told the journal: a shell or a pipe around srun has one of its own.
# Of a failure it only says that there was one; hpc_judge looks up which code was meant.
hpc_told_code() {
    local newest
    newest=$(ls -t "$hpc_directory/journal/$hpc_life".*.jsonl "$hpc_directory"/*/journal/"$hpc_life".*.jsonl 2>/dev/null | head -n 1)
    awk '
        /^{"event": "stopped"/ { code = /"STOP_FILE"/ ? 130 : 75 }
        /^{"event": "failed"/ { code = 1 }
        /^{"event": "(closed|finished)"/ { code = 0 }
        END { print code + 0 }' "${newest:-/dev/null}"
}

# What srun and slurmstepd have said in this life.
hpc_said() {
    tail -c "+$((${hpc_log_start:-0} + 1))" "$hpc_log" 2>/dev/null | grep -aE '^(srun|slurmstepd[^:]*): error:'
}

# Why this life has ended: sets hpc_verdict, hpc_follows, hpc_budget and hpc_phrase. What cannot come back asks nobody.
hpc_judge() {
    local told=nothing restarts= preempted=none failed code
    failed=$(hpc_failed) hpc_record=
    if grep -Eq "$hpc_memory_words" <<<"$failed" || hpc_said | grep -Eq "$hpc_memory_words"; then
        told=memory
    elif [[ $failed == *'"is_echo": true'* ]]; then
        told=echo
    elif [ -n "$failed" ]; then
        told=exception
    fi
    code=$(sed -n 's/.*"code": \([0-9]*\).*/\1/p' <<<"$failed")
    [ "${code:-1}" -ne 1 ] && hpc_code=$code # srun tells the largest code, which may be that of a rank that was killed later
    case $hpc_code:$told:$hpc_retry_exceptions in
    *:memory:* | 65:* | 74:* | 76:* | 78:* | 79:* | 80:* | 130:* | 1:nothing: | 1:exception:) ;;
    *) hpc_ask ;;
    esac
    if [ -n "$(hpc_field JobState)" ]; then
        [ "$(hpc_field Restarts)" = "$hpc_restarts" ] && restarts=same || restarts=more
    fi
    case $(hpc_field PreemptTime) in [0-9]*) preempted=set ;; esac
    read -r hpc_verdict hpc_follows hpc_budget hpc_phrase <<<"$(
        hpc_why "$hpc_code:$told:$(hpc_field JobState):$restarts:$(hpc_field Reason):$preempted"
    )"
    [ "$hpc_follows" = if_asked ] && hpc_follows=${hpc_retry_exceptions:+again}
    hpc_follows=${hpc_follows:-nothing}
}

# How many checkpoints this run has completed in all its lives, those of its named folds and phases included.
hpc_commits() {
    cat "$hpc_directory"/journal/*.jsonl "$hpc_directory"/*/journal/*.jsonl 2>/dev/null | grep -c '^{"event": "committed"'
}

# How many lives before this one have ended in a row without a new checkpoint, of one budget or of all. Where a life was
# the last one, whoever submits the run again begins anew.
hpc_in_a_row() {
    cat "$hpc_directory/journal/ended.jsonl" 2>/dev/null | awk -v same="\"commits\": $hpc_done}" -v kind="\"budget\": \"$1" '
        !index($0, same) || /"follows": "nothing"/ { n = 0; next }
        index($0, kind) { n++ }
        END { print n + 0 }'
}

# Ends what has begun too often: sets hpc_limit to a sentence about that.
hpc_count() {
    local crashes=$(($(hpc_in_a_row crash) + 1)) lives=$(($(hpc_in_a_row) + 1))
    if [ "$hpc_budget" = crash ] && [ "$crashes" -ge "${hpc_max_crashes:-3}" ]; then
        hpc_limit="launch.max_crashes=${hpc_max_crashes:-3} is reached without a new checkpoint"
    elif [ "$lives" -ge "${hpc_max_lives:-5}" ]; then
        hpc_limit="runtime.max_lives_without_progress=${hpc_max_lives:-5} is reached"
    fi
    [ -n "$hpc_limit" ] && hpc_follows=nothing
}

# Tells the journal (hpc/run/events.py, Ended), whose directory is not there where no rank has come so far.
hpc_tell() (
    local attempt
    attempt=$(ls -t "$hpc_directory/journal/" 2>/dev/null | grep "^$hpc_life\." | head -n 1)
    attempt=${attempt%.jsonl}
    umask 022
    mkdir -p "$hpc_directory/journal"
    printf '{"event": "ended", "attempt": "%s", "time": %s, "code": %s, "verdict": "%s", "follows": "%s", "budget": "%s", "commits": %s}\n' \
        "${attempt:-$hpc_life}" "$(date +%s.%3N)" "$hpc_code" "$hpc_verdict" "$hpc_follows" "$hpc_budget" "$hpc_done" \
        >>"$hpc_directory/journal/ended.jsonl"
) 2>/dev/null

# The nodes to do without from now on: those that were excluded before, and the one that lost a rank first, or whose rank
# did not go on. Prints nothing where the partition has too few others that work, or the job asks for nodes by their names.
hpc_excluded() {
    local node list there
    [ -n "$hpc_exclude_failed_nodes" ] && [ "$(hpc_field ReqNodeList)" = "(null)" ] || return
    if [ "$hpc_verdict" = hung ]; then # hpc/stop/hang.py: a rank that waits for others is not named so
        node=$(hpc_failed | sed -nE 's/.* rank [0-9]+ on ([^ .]+)[^ ]* is (stopped|silent).*/\1/p')
    else
        node=$(hpc_said | sed -nE 's/^srun: error: ([^ :]+): tasks? [0-9,-]+: (Killed|Aborted|Segm|Bus|Illegal|Floating).*/\1/p
            s/^srun: error: Node failure on ([^ ]+).*/\1/p' | head -n 1)
    fi
    list=$(hpc_field ExcNodeList | sed 's/(null)//')
    list=$list${list:+,}$node
    there=$(sinfo --noheader --Node --partition="$(hpc_field Partition)" --states=idle,mixed,allocated,completing --format=%N)
    there=$(grep -vxF -f <(scontrol show hostnames "$list") <<<"$there" | sort -u | wc -l)
    if [ -n "$node" ] && [ "$there" -ge "$(hpc_field NumNodes)" ]; then
        echo "$list"
    fi
} 2>/dev/null

# Sends a job that begins when this one has ended: the same script, arguments and point. Prints its number.
hpc_send_successor() (
    job=$SLURM_JOB_ID task=$SLURM_ARRAY_TASK_ID excluded=$1
    shift
    cd "$SLURM_SUBMIT_DIR" || return
    for name in $(compgen -e); do
        case $name in
        SLURM_CONF | SLURM_CLUSTERS) ;;
        SLURM_* | SBATCH_* | SRUN_* | SUBMITIT_* | PMI*) unset "$name" ;;
        esac
    done
    export HPC_RUN_DIR=$hpc_sweep
    sbatch --parsable --dependency="afterany:$job" ${task:+--array="$task"} ${excluded:+--exclude="$excluded"} "$0" "$@"
)

# Which job holds the point from now on (hpc/run/submissions.py); `hpc status` and `hpc cancel` look there.
hpc_record_successor() {
    local attempt
    attempt=$(tail -n 1 "$hpc_directory/journal/ended.jsonl" | sed 's/.*"attempt": "\([^"]*\)".*/\1/')
    printf '{"event": "submitted", "job": "%s", "points": ["%s"], "time": %s, "is_array": %s, "first_index": %s, "after": {"%s": "%s"}}\n' \
        "$1" "$hpc_point" "$(date +%s)" "${SLURM_ARRAY_TASK_ID:+true}" "${SLURM_ARRAY_TASK_ID:-0}" "$hpc_point" "$attempt" |
        sed 's/"is_array": ,/"is_array": false,/' >>"$hpc_sweep/submissions.jsonl"
}

# Whether `hpc cancel` has noted this job, which it does before it asks for its end and looks for one that follows.
hpc_is_cancelled() {
    grep '^{"event": "cancelled"' "$hpc_sweep/submissions.jsonl" | grep -qF "\"$hpc_job\""
} 2>/dev/null

# Lets the run go on, and prints how. A controller that is away is asked again, and so is why: a person may have
# cancelled the job meanwhile.
hpc_go_on() {
    local answer excluded= wait=1
    [ "$hpc_budget" = crash ] && excluded=$(hpc_excluded)
    while [ "$hpc_follows" = again ]; do
        if answer=$(scontrol requeue "$hpc_job" 2>&1) || [[ $answer == *"pending execution"* ]]; then
            if [ -n "$excluded" ] && scontrol update "jobid=$hpc_job" "excnodelist=$excluded" >/dev/null 2>&1; then
                answer=" without $excluded"
            fi
            echo "requeued$answer"
            return
        fi
        if hpc_is_away "$answer" && [ "$SECONDS" -lt "$hpc_deadline" ]; then
            sleep $wait
            wait=$((wait < 16 ? wait * 2 : 16))
            hpc_judge
        elif answer=$(hpc_send_successor "$excluded" "$@" 2>&1); then
            answer=$(tail -n 1 <<<"${answer%%;*}")
            hpc_record_successor "$answer"
            if ! hpc_is_cancelled; then
                echo "job $answer goes on from here"
                return
            fi
            scancel "$answer"
            answer="it was cancelled by \`hpc cancel\`"
            break
        else
            break
        fi
    done
    echo "not requeued (${answer:-it $hpc_phrase}); \`hpc resume $hpc_sweep\` goes on from here"
}

if [ "$hpc_code" -eq 0 ] && ! [ -e "$hpc_directory/finished.json" ]; then
    hpc_code=$(hpc_told_code)
fi
if [ "$hpc_code" -ne 0 ] || ! [ -e "$hpc_directory/finished.json" ]; then
    hpc_deadline=$((SECONDS + 300)) hpc_limit=
    hpc_failure=$(ls -t "$hpc_directory/failures/$hpc_life."*.txt 2>/dev/null | head -n 1)
    if [ "$hpc_code" -ne 0 ] && [ -n "$hpc_failure" ]; then
        cat "$hpc_failure" >&2
    fi
    hpc_judge
    hpc_done=$(hpc_commits)
    [ "$hpc_follows" = again ] && hpc_count
    if [ "$hpc_verdict" != finished ] && ! hpc_tell; then # nobody could count how often it begins
        hpc_follows=nothing hpc_phrase+=", which its journal could not be told"
    fi
    if [ -n "$hpc_limit" ]; then
        echo "hpc: job $hpc_job $hpc_phrase, and $hpc_limit: look at $hpc_directory/failures, then \`hpc retry $hpc_sweep\`." >&2
        exit 76
    fi
    case $hpc_follows:$hpc_verdict:$hpc_phrase in
    again:*) echo "hpc: job $hpc_job $hpc_phrase: $(hpc_go_on "$@")." >&2 ;;
    already:*) echo "hpc: job $hpc_job $hpc_phrase." >&2 ;;
    nothing:cancelled:* | nothing:out_of_memory:* | nothing:unknown:* | *"not be told") echo "hpc: job $hpc_job $hpc_phrase, and is not requeued." >&2 ;;
    esac
fi
exit "$hpc_code"

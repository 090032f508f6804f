# A rank that cannot start here would not start in another life either: one sentence, and no requeue.
if ! hpc_said=$("${hpc_worker[@]}" -u -m "$hpc_task" 2>&1 >/dev/null); then
    hpc_sentence=$(grep -m 1 '^hpc: ' <<<"$hpc_said")
    hpc_said=$(grep . <<<"$hpc_said" | tail -n 1)
    echo "${hpc_sentence:-hpc: container.image must have a Python with hpc and the packages of the project, but on node $(uname -n) starting it says \"${hpc_said:-nothing}\": build one with \`hpc image\`, or see container.python.}" >&2
    exit 78
fi

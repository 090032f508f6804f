# Why has a life of this job ended, and what follows? The batch script asks hpc_why, and hpc/slurm/why.py reads the same
# rows: each is one line, and the first that fits counts. Six words are compared:
#
#     exit code : told : JobState : Restarts : Reason : PreemptTime
#
# told            what the first rank to fail has said: memory, echo (of a peer that is gone, hpc/attempt/words.py),
#                 exception; else nothing
# Restarts        more than this life had, or the same; it is empty, as JobState and Reason are, where nobody answers
# PreemptTime     set, or none
#
# The answer is the verdict, what follows (again, if_asked, already, nothing), what it counts as (crash, life, nothing), and
# a phrase about the job.
hpc_memory_words='OutOfMemoryError|[Oo]ut [Oo]f [Mm]emory|MemoryError|[Cc]annot allocate memory|can.t allocate memory|not enough memory|bad_alloc|oom.kill'
hpc_why() {
    case $1 in
    *:*:*:more:*:*) echo requeued already nothing "was requeued by Slurm or by a person" ;;
    *:*:CANCELLED:*:*:*) echo cancelled nothing nothing "was cancelled" ;;
    *:*:COMPLETING:same:None:none) echo cancelled nothing nothing "was cancelled" ;;
    65:*|74:*|76:*|78:*|79:*|80:*) echo refused nothing nothing "ended with an error that another life would have, too" ;;
    *:memory:*) echo out_of_memory nothing nothing "ran out of memory" ;;
    130:*) echo interrupted nothing nothing "was interrupted" ;;
    *:*:NODE_FAIL:same:*:*) echo node_failed again crash "lost a node" ;;
    0:*) echo finished nothing nothing "finished" ;;
    70:*:RUNNING:same:*:*) echo hung again crash "hung" ;;
    *:exception:*) echo exception if_asked crash "ended with an exception of its program" ;;
    *:*:*:same:TimeLimit:*) echo time_limit again life "met its time limit" ;;
    75:*:RUNNING:same:*:set) echo preempted again life "was preempted and saved its state" ;;
    75:*:RUNNING:same:*:none) echo stopped again life "saved its state" ;;
    *:*:RUNNING:same:*:set) echo preempted_early again life "was preempted before it could save" ;;
    *:*:COMPLETING:same:*:set|*:*:PREEMPTED:same:*:*) echo preempted_for_good again life "was preempted without a requeue" ;;
    1:echo:RUNNING:same:*:*) echo peer_lost again crash "lost the connection between its ranks" ;;
    129:*:RUNNING:same:*|1[3-5][0-9]:*:RUNNING:same:*) echo rank_died again crash "lost a rank to a signal" ;;
    7[05]:*|129:*|1[3-5][0-9]:*|*:echo:*) echo unknown nothing nothing "ended, and Slurm does not say why" ;;
    *) echo exit_code if_asked crash "ended with an exit code of its program's own" ;;
    esac
}

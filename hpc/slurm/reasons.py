"""Why does a job wait? Slurm's reason codes in words.

Source: https://slurm.schedmd.com/job_reason_codes.html (25.11) and squeue(1) of 22.05. There are some 200 of them; many
are one limit in many resources, and have one line here with a *.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

REASONS = {
    "Priority": "Jobs with a higher priority are ahead of it in the queue.",
    "Resources": "It is next, and waits for nodes to become free.",
    "None": "Slurm has not looked at it yet.",
    "JobArrayTaskLimit": "As many points of this sweep run as cluster.max_parallel_points allows.",
    "BeginTime": "It may not start yet; a job that was requeued waits about two minutes.",
    "Cleaning": "Its earlier life is still being cleaned up on the nodes.",
    "Dependency": "It waits for another job that it depends on.",
    "DependencyNeverSatisfied": "The job that it depends on has failed: it will never start. Cancel it.",
    "JobHeldUser": "It is held by its owner: `scontrol release` lets it start.",
    "JobHeldAdmin": "It is held by an administrator, or because it failed to start too often.",
    "JobHoldMaxRequeue": "It was requeued too often and is held: `scontrol release` lets it start again.",
    "launch*held*": "Its launch failed on a node, and it is held: `scontrol release` lets it try again.",
    "JobLaunchFailure": "It could not be launched: perhaps a file system or a program was missing on the node.",
    "BadConstraints": "No node has what it asks for: it will never start. Look at hardware and cluster.constraint.",
    "ReqNodeNotAvail*": "A node that it needs is down, drained or reserved, perhaps for maintenance.",
    "Nodes?required?for?job?are?DOWN*": "Nodes that it needs are down, drained, or kept for jobs of higher priority.",
    "NodeDown": "A node that it needs is down.",
    "Reservation": "It waits for its reservation to begin.",
    "ReservationDeleted": "Its reservation is gone: choose another, or none, in cluster.sbatch.",
    "Licenses": "It waits for a licence.",
    "PartitionDown": "Its partition takes jobs and starts none at the moment.",
    "PartitionInactive": "Its partition is closed and starts no jobs.",
    "PartitionNodeLimit": "It asks for more nodes than its partition gives: it will not start. Lower hardware.nodes.",
    "PartitionTimeLimit": "Its time limit is longer than its partition's: lower hardware.time_limit_minutes.",
    "PartitionConfig": "It asks for something that its partition does not allow.",
    "AccountNotAllowed": "Its account may not use this partition: look at cluster.account and cluster.partition.",
    "InvalidAccount": "Its account does not exist: look at cluster.account.",
    "InvalidQOS": "Its QOS does not exist: look at cluster.qos.",
    "QOSNotAllowed": "Its QOS may not be used on this partition: look at cluster.qos and cluster.partition.",
    "QOSUsageThreshold": "Its QOS has used more than its share, and waits until that was long enough ago.",
    "QOSTimeLimit": "Its QOS has no time left.",
    "QOSJobLimit": "Its QOS has as many jobs as it may.",
    "QOSResourceLimit": "Its QOS has all the resources that it may use.",
    "QOSMax*MinutesPerJob": "It asks for more than a job of its QOS may use in all: lower hardware or its time limit.",
    "QOSMaxWallDurationPerJobLimit": "Its time limit is longer than its QOS allows: lower hardware.time_limit_minutes.",
    "QOSMax*PerUser*": "You use as much as one user of this QOS may: it starts when another job of yours ends.",
    "Max*PerUser*": "You use as much as one user may: it starts when another job of yours ends.",
    "QOSMax*PerAccount*": "Your account uses as much as one account of this QOS may.",
    "Max*PerAccount": "Your account uses as much as one account may.",
    "QOSMax*": "It asks for more than one job of its QOS may have.",
    "QOSMin*": "It asks for less than a job of its QOS must.",
    "QOSGrp*": "Everybody together uses as much of this QOS as it has: it starts when some of that is free again.",
    "AssocGrp*Minutes*": "Your account has used up its hours, or would with this job.",
    "AssocGrp*": "Your account uses as much at once as it may: it starts when some of that is free again.",
    "AssocMaxJobsLimit": "You have as many jobs running as your account allows: it starts when one of them ends.",
    "AssocMax*": "It asks for more than one job of your account may have.",
    "AssociationJobLimit": "Your account has as many jobs as it may.",
    "AssociationResourceLimit": "Your account has all the resources that it may use.",
    "AssociationTimeLimit": "Your account has no time left.",
    "AccountingPolicy": "A limit of your account or QOS holds it back.",
    "FedJobLock": "It waits for the other clusters of its federation.",
    "DeadLine": "It could not end before its deadline any more.",
    "MaxBBPerUser*": "It waits for the burst buffer.",
    "BurstBuffer*": "It waits for the burst buffer, or its staging.",
    "Prolog": "The nodes are being prepared for it.",
    "NodesBooting": "Its nodes are being switched on.",
    "SystemFailure": "Slurm, a file system or the network has failed.",
}
"""From Slurm's code, or a pattern of codes, to a sentence; the first that fits counts."""


def explained(reason: str) -> str:
    """The code in words; "" for one that is not known, which is then shown as it is."""
    text = reason.strip("()")
    return next((words for pattern, words in REASONS.items() if text == pattern or fnmatchcase(text, pattern)), "")

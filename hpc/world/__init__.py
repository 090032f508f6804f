"""Which rank is this process, among how many, on which nodes, and who says so? Free of torch."""

from hpc.world.hostlist import expand_hostlist, expand_tasks_per_node
from hpc.world.resolve import Candidate, Explanation, explain_world, resolve_world
from hpc.world.world import World

__all__ = [
    "Candidate",
    "Explanation",
    "World",
    "expand_hostlist",
    "expand_tasks_per_node",
    "explain_world",
    "resolve_world",
]

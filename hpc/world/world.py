"""What is a World?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """One process among the ranks that train together: resolved once, then handed to whoever needs it.

    Args:
        rank: This process, from 0.
        world_size: Number of ranks.
        local_rank: This process among those of its node, from 0.
        local_world_size: Ranks on this node; nodes may differ.
        node_rank: This node among the nodes, from 0.
        node_count: Number of nodes.
        hosts: The nodes' names, by node rank. Some launchers name only rank 0's host; then it is the only one here.
        source: The launcher that was believed: a name from `hpc.world.launchers.LAUNCHERS`.
        job: A name that no other running world has: "<cluster>.<job>.<step>", "torchrun.<run id>".
        attempt: How often the launcher has restarted this job.
        master: Address and port of the store, where the launcher gave them; None: the ranks look for rank 0's beacon.
        agent_store: torchrun's agent already serves the store at `master`, so rank 0 must not.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    node_count: int
    hosts: tuple[str, ...]
    source: str
    job: str
    attempt: int = 0
    master: tuple[str, int] | None = None
    agent_store: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which commits, logs and requeues."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this is the first rank of its node."""
        return self.local_rank == 0

"""How does anybody's training loop meet a real Slurm, and every fault of one, in its own tests?

`pip install 'hpc[testing]'` brings the fixtures of `hpc.testing.plugin` to pytest; docs/testing.md shows them. Nothing
else of hpc imports this room, and this room imports nothing else of hpc.
"""

"""What Hydra finds of hpc: its config groups, its sweeper and its launcher.

`hydra_plugins` itself has no `__init__.py`: it is a namespace that every plugin of the environment shares.
"""

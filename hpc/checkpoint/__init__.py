"""Checkpoints: one directory each, complete or invisible."""

"""From composed configs to jobs in a queue. Runs on login nodes: nothing here imports torch."""

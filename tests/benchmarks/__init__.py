"""What does hpc cost? Measured beside what it is made of, in the same run, on the same machine."""

"""From plans to ranks on this machine, and to the scheduler."""

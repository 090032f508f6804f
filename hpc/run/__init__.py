"""What lies in a run directory, and what has happened to it?"""

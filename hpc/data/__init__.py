"""Which sample is next, on which rank, and where was the run in its data?"""

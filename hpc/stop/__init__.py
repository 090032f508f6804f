"""Is it time to stop, and do all ranks think so at the same step?"""

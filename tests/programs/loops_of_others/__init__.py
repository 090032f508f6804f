"""Loops that are written the way that another library's documentation says, and the same one in ours."""

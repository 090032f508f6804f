"""One attempt of one point, on this rank."""

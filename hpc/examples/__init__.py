"""What can be trained right after a clone? Models and data that need no download."""

"""What do a launcher's variables say? One small function for each row of the table, a module for each family.

Every `read_*` takes a mapping in which the variables it needs are set, and returns a World, or raises a WorldError.
Every `*_doubt` returns why the launcher's signs do not count in this environment, and every `*_advice` returns what the
user should know; both return "" where there is nothing to say.
"""

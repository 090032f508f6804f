"""What do a launcher's variables say? One small function for each row of the table, a module for each family.

Every `read_*` takes a mapping in which the variables it needs are set, and returns a World, or names what is wrong.
Every `*_doubt` says why the signs do not count this time, every `*_advice` what the user should know; "" is nothing.
"""

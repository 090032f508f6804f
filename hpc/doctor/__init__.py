"""Which promises hold here, and what is done about those that do not?"""

"""What an init file wants, its lock, and what environments stand on.

`provision` is the use case: from wanted templates to a store that holds their
chains.
"""

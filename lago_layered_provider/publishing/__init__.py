"""Make, check and grow repositories: FILES, PROCESSES.

What is decided about them is in `core`; see `publication`, `lint`, `specs`.
"""

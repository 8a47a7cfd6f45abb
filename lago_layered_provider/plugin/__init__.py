"""Lago, and all that touches it: hooks, repairs, export, completion.

`lago_plugin` loads it.
"""

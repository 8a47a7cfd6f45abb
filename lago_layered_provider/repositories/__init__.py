"""Where an index is, how it is read and kept, and look-ups for what it leaves
open.
"""

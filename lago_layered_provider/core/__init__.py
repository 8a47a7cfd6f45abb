"""Decide: pure values in, pure values out.

Nothing here opens a file, a socket or a process, starts a thread, reads a
clock, logs or imports Lago.
"""

"""Carry out a plan; begin to read in `engine`."""

"""Threads, locks and files, as everybody uses them."""

"""Checking: what a table must be, whether it is, and the page that says so."""

"""Verifiers: the short answer in a text, and whether it is right."""

"""Executors: who works on the parts of a stage."""

"""Trials: what a method does against its control where the truth is known, a file a group.

A trial is a function from a seed to two numbers, the method's and its control's, from one draw of everything. It calls
the real method, by its name, on procedural or simulated data, in seconds; `benchmarks/recipes.py` runs it for several
seeds. Its docstring is what is claimed, in a sentence.
"""
